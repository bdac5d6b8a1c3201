//! What the masks of an image mark, and what their levels say about them.

mod tally;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::tally::{LevelTally, MaskTally};
use super::annotation::OutlineFacts;
use super::bit_mask::BitMask;
use super::decode::{DecodeLimits, Strips};
use super::layout::Source;
use crate::artifacts::File;
use crate::stages::{Progress, StageError};

/// Number of distinct levels that are kept of a mask. Masks with more have soft edges or come from lossy files.
const KEPT_LEVELS: usize = 8;

/// What the palette of a mask says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PaletteFacts {
    /// There is none, or its colours and indices agree.
    #[default]
    Plain,
    /// The region is in the indices, because the colours are the same everywhere.
    ByIndex,
    /// The colours, which decide, say something else than the indices.
    Differs,
}

impl PaletteFacts {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

/// What is known of the masks of an image before they are resized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MaskFacts {
    /// The lowest distinct levels above 0, at most [`KEPT_LEVELS`], and the highest.
    pub(super) levels: BTreeSet<u16>,
    /// The number of distinct levels above 0.
    pub(super) level_count: usize,
    /// Whether the region is in the transparency, because the colours are the same everywhere.
    pub(super) is_by_alpha: bool,
    /// Whether most pixels are marked.
    pub(super) is_mostly_marked: bool,
    /// What the palette says.
    #[serde(default, skip_serializing_if = "PaletteFacts::is_plain")]
    pub(super) palette: PaletteFacts,
    /// What is known of the outlines of an annotation.
    #[serde(default, skip_serializing_if = "OutlineFacts::is_plain")]
    pub(super) outlines: OutlineFacts,
}

/// The image that masks belong to, after it was turned as its metadata say.
#[derive(Clone, Copy)]
pub(super) struct Canvas {
    /// Width and height in px.
    pub(super) size: (u32, u32),
    /// Whether it was turned.
    pub(super) is_turned: bool,
}

/// Reads and unites the masks of an image. Marks defects: pixels whose strongest channel is greater than `threshold` (of
/// 255). Without masks nothing is marked.
pub(super) fn read(
    threshold: u8,
    source: &Source<'_>,
    canvas: Canvas,
    limits: DecodeLimits,
) -> Result<(BitMask, MaskFacts), StageError> {
    let size = (canvas.size.1 as usize, canvas.size.0 as usize);
    let mut united = BitMask::new(size.0, size.1);
    let mut facts = MaskFacts::default();
    for file in &source.masks {
        let mut strips = Strips::open(file, limits)?;
        if strips.size() != canvas.size {
            return Err(wrong_size(file, strips.size(), source.image, canvas));
        }
        let mut tally = None;
        while let Some(strip) = strips.next()? {
            let indices = strip
                .indices()
                .map_err(|fault| StageError::Image { path: file.path.clone(), source: fault })?;
            let image = &strip.decoded.image;
            tally
                .get_or_insert_with(|| MaskTally::new(size, threshold, image, strip.decoded.has_palette))
                .add(image, indices.as_ref());
        }
        if let Some(tally) = tally {
            united.unite(&tally.finish(&mut facts));
        }
    }
    if let Some(annotation) = &source.annotation {
        let (drawn, outlines) = annotation.draw(canvas, source.image)?;
        let mut tally = LevelTally::new(size, 0);
        for (row, line) in drawn.as_raw().chunks_exact(size.1).enumerate() {
            tally.add(row, &line.iter().map(|&level| u16::from(level)).collect::<Vec<_>>());
        }
        united = tally.finish(&mut facts);
        facts.outlines = outlines;
    }
    Ok((united, facts))
}

fn wrong_size(
    file: &File,
    mask: (u32, u32),
    image: &File,
    Canvas { size: (width, height), is_turned }: Canvas,
) -> StageError {
    let message = format!(
        "the mask `{}` has {}×{} px, its image `{}` has {height}×{width} px (height × width)",
        file.path.display(),
        mask.1,
        mask.0,
        image.path.display(),
    );
    let help = if is_turned && mask == (height, width) {
        "the image is turned as its EXIF orientation says: turn the mask too, or remove the tag from the image"
    } else {
        "a mask must have the size of its image"
    };
    StageError::data(message, help)
}

impl MaskFacts {
    fn levels_text(&self) -> String {
        let text: Vec<String> = self.levels.iter().map(u16::to_string).collect();
        if self.level_count > self.levels.len() {
            format!("{} of {} levels", text.join(", "), self.level_count)
        } else {
            text.join(", ")
        }
    }
}

/// Warns of masks whose meaning is open, once for each reason: soft edges or classes, transparency, inversion. A level
/// that `codes` does not have is an error.
pub(super) fn report<'a>(
    masks: impl Iterator<Item = (&'a Source<'a>, &'a MaskFacts)>,
    codes: Option<&BTreeSet<u8>>,
    threshold: u8,
    progress: &dyn Progress,
) -> Result<(), StageError> {
    let masks: Vec<_> = masks.filter(|(source, _)| source.has_marks()).collect();
    report_outlines(&masks, progress);
    let masks: Vec<_> = masks.into_iter().filter(|(source, _)| !source.masks.is_empty()).collect();
    let mut seen: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for (source, facts) in &masks {
        let name = source.masks[0].path.display();
        if let Some(codes) = codes {
            let is_known = |level: &u16| u8::try_from(*level).is_ok_and(|level| codes.contains(&level));
            if let Some(level) = facts.levels.iter().find(|level| !is_known(level)) {
                return Err(StageError::data(
                    format!("the mask `{name}` has the level {level}, which the data set does not list"),
                    "correct the mask or the list of levels (`defects_config.json`)",
                ));
            }
        } else if facts.level_count > 1 {
            let first = || (0, format!("`{name}` has the levels {}", facts.levels_text()));
            seen.entry("levels").or_insert_with(first).0 += 1;
        }
        if facts.is_by_alpha {
            seen.entry("alpha").or_insert_with(|| (0, format!("`{name}`"))).0 += 1;
        }
        let palette = match facts.palette {
            PaletteFacts::Plain => None,
            PaletteFacts::ByIndex => Some("index"),
            PaletteFacts::Differs => Some("palette"),
        };
        if let Some(what) = palette {
            seen.entry(what).or_insert_with(|| (0, format!("`{name}`"))).0 += 1;
        }
        if facts.is_mostly_marked {
            seen.entry("inverted").or_insert_with(|| (0, format!("`{name}`"))).0 += 1;
        }
    }
    let marking = masks.iter().filter(|(_, facts)| facts.level_count > 0).count();
    for (what, (count, example)) in seen {
        match what {
            "levels" => progress.warn(&format!(
                "{count} masks have more than one grey level, such as {example}: all above `mask_threshold = \
                 {threshold}` count as defective; if these are soft edges or a lossy file, set `mask_threshold = 127`"
            )),
            "alpha" => progress.warn(&format!(
                "{count} masks have one colour everywhere, such as {example}: their transparency marks the defects"
            )),
            "index" => progress.warn(&format!(
                "{count} masks have a palette of one colour, such as {example}: all indices above 0 count as defective"
            )),
            "palette" => progress.warn(&format!(
                "{count} masks have a palette whose colours say something else than its indices, such as {example}: the \
                 colours count; if the indices are classes, save them as grey levels"
            )),
            _ if 2 * count > marking => progress.warn(&format!(
                "{count} of {marking} masks mark most of their image, such as {example}: are they inverted? Defects \
                 must be brighter than the rest"
            )),
            _ => {}
        }
    }
    Ok(())
}

/// Warns of outlines that cover nothing, and of those that fall apart.
fn report_outlines(masks: &[(&Source<'_>, &MaskFacts)], progress: &dyn Progress) {
    let report = |count: fn(&OutlineFacts) -> usize, what: &str| {
        let sum: usize = masks.iter().map(|(_, facts)| count(&facts.outlines)).sum();
        if let Some((source, _)) = masks.iter().find(|(_, facts)| count(&facts.outlines) > 0) {
            let name = source.image.path.display();
            progress.warn(&format!("{sum} polygons {what}, such as of `{name}`: see `polygon_rule`"));
        }
    };
    report(|facts| facts.empty_count, "cover no pixel");
    report(|facts| facts.torn_count, "are thinner than a pixel and fall apart into several regions");
}
