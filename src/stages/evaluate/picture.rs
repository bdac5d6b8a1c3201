//! Draws the pictures of an evaluation: the image with the outline of its mask, beside the heat map, under a caption.

use std::path::Path;

use image::{GrayImage, Rgb, RgbImage};

use super::choice::{Choice, Judgement, choose};
use super::passes::{Row, smooth};
use super::{Evaluate, StageError};
use crate::artifacts::Files;
use crate::artifacts::image_set::{UNKNOWN_KIND, pixels, read_mask, read_rgb, write_rgb};
use crate::stages::drawing::{beside, captioned, outlined};

/// The threshold by which images are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ShownThreshold {
    pub(super) score: f32,
    /// What it is called in captions.
    pub(super) name: &'static str,
}

/// The colours of all pictures: values from the lowest to the highest pixel in any of them.
#[derive(Clone, Copy, Debug)]
struct Scale {
    low: f32,
    high: f32,
}

/// Draws `spec.pictures` images into `pictures/`, in names that begin with the judgement on them.
pub(super) fn draw(
    spec: &Evaluate,
    folder: &Path,
    rows: &[Row<'_>],
    images: &Files,
    threshold: ShownThreshold,
) -> Result<(), StageError> {
    let scores: Vec<(f32, bool)> = rows.iter().map(|row| (row.scored.score, row.is_defect())).collect();
    let choices = choose(&scores, threshold.score, spec.pictures);
    if choices.is_empty() {
        return Ok(());
    }
    let files = pixels(images);
    let mut maps = Vec::new();
    for row in choices.iter().map(|choice| &rows[choice.image]) {
        let mask = read_mask(row.labelled.mask)?;
        let size = [mask.height() as usize, mask.width() as usize];
        maps.push((mask, smooth(spec, &row.scored.map, row.grid, size)));
    }
    let all = || maps.iter().flat_map(|(_, map)| map.iter().copied());
    let (low, high) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
    let scale = Scale { low, high };
    for (choice, (mask, map)) in choices.iter().zip(&maps) {
        let row = &rows[choice.image];
        let id = row.labelled.entry.id;
        let Some(file) = files.get(id) else { continue };
        let picture = picture(read_rgb(file)?, mask, map, scale, &caption(row, *choice, threshold, scale));
        let name = format!("{}_{:03}_{}.png", choice.judgement.name(), choice.rank, id.replace('/', "_"));
        write_rgb(&folder.join("pictures").join(name), &picture)?;
    }
    Ok(())
}

fn picture(image: RgbImage, mask: &GrayImage, map: &[f32], scale: Scale, lines: &[String]) -> RgbImage {
    let panels = [outlined(image, mask), heat(map, mask.width(), mask.height(), scale)];
    captioned(&beside(&panels), lines)
}

/// The lines above a picture: the image, its label and what became of it, its score and the threshold, the colours.
fn caption(row: &Row<'_>, choice: Choice, threshold: ShownThreshold, scale: Scale) -> Vec<String> {
    let entry = &row.labelled.entry;
    let kind = entry.kind.filter(|&kind| kind != UNKNOWN_KIND).map(|kind| format!(" ({kind})"));
    let label =
        if row.is_defect() { format!("defect{}", kind.unwrap_or_default()) } else { "normal".to_owned() };
    let judgement = match choice.judgement {
        Judgement::Missed => "missed",
        Judgement::FalseAlarm => "false alarm",
        Judgement::Found => "found",
        Judgement::Passed => "passed",
    };
    vec![
        entry.id.to_owned(),
        format!("{label}: {judgement}"),
        format!("score {:.4}", row.scored.score),
        format!("{} {:.4}", threshold.name, threshold.score),
        format!("map {:.3} to {:.3}", scale.low, scale.high),
    ]
}

fn heat(map: &[f32], width: u32, height: u32, Scale { low, high }: Scale) -> RgbImage {
    let range = (high - low).max(f32::MIN_POSITIVE);
    RgbImage::from_fn(width, height, |x, y| {
        let value = map[(y * width + x) as usize];
        colour((value - low) / range)
    })
}

/// Returns the colour of a value in `0..=1`: Google's Turbo colour map (Mikhailov 2019) in its published polynomial
/// approximation.
fn colour(value: f32) -> Rgb<u8> {
    let x = f64::from(value.clamp(0.0, 1.0));
    let polynomial = |c: [f64; 6]| c.iter().rev().fold(0.0, |sum, c| sum * x + c);
    let level = |c| (polynomial(c).clamp(0.0, 1.0) * 255.0).round() as u8;
    Rgb([
        level([0.135_721_38, 4.615_392_60, -42.660_322_58, 132.131_082_34, -152.942_393_96, 59.286_379_43]),
        level([0.091_402_61, 2.194_188_39, 4.842_966_58, -14.185_033_33, 4.277_298_57, 2.829_566_04]),
        level([0.106_673_30, 12.641_946_08, -60.582_048_36, 110.362_767_71, -89.903_109_12, 27.348_249_73]),
    ])
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;
    use crate::artifacts::image_set::{Label, label_name, labelled, pixels_name, write_mask};
    use crate::stages::drawing::tests::read_line;
    use crate::stages::fields::Value;
    use crate::stages::scorer::Scored;

    #[test]
    fn colours_run_from_blue_to_red() {
        let (Rgb(low), Rgb(high)) = (colour(0.1), colour(0.95));
        assert!(low[2] > low[0] && high[0] > high[2], "{low:?} {high:?}");
    }

    fn spec(pictures: i64) -> Evaluate {
        let fields = crate::stages::fields::fields([
            ("model", Value::from("m")),
            ("features", "f".into()),
            ("images", "i".into()),
            ("blur", "none".into()),
            ("pictures", Value::Integer(pictures)),
        ]);
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = crate::stages::fields::Reader::new(&fields, &mut problems, &mut ports);
        crate::stages::Stage::read(&mut reader)
    }

    /// Two normal images and two defects of 64 × 24 px, with a score each.
    const SCORES: [(&str, Label, f32); 4] = [
        ("test/a", Label::Normal, 1.0),
        ("test/b", Label::Normal, 6.0),
        ("test/c", Label::Defect, 2.0),
        ("test/d", Label::Defect, 9.0),
    ];

    #[test]
    fn pictures_show_mistakes_with_label_score_and_threshold() {
        let (set, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (id, label, _) in SCORES {
            let mut mask = GrayImage::new(64, 24);
            if label == Label::Defect {
                mask.put_pixel(10, 10, Luma([255]));
            }
            write_rgb(&set.path().join(pixels_name(id)), &RgbImage::from_pixel(64, 24, Rgb([90; 3])))
                .unwrap();
            write_mask(&set.path().join(label_name("test", label, "scratch", id)), &mask).unwrap();
        }
        let files = Files::of_folder(set.path()).unwrap();
        let labelled = labelled(&files);
        let row = |(id, _, score): (&str, Label, f32)| Row {
            labelled: &labelled[id],
            scored: Scored { score, map: vec![score, 0.0] },
            grid: [1, 2],
            size: [24, 64],
            is_without_region: false,
        };
        let rows: Vec<Row<'_>> = SCORES.into_iter().map(row).collect();
        let threshold = ShownThreshold { score: 5.0, name: "threshold" };
        draw(&spec(3), output.path(), &rows, &files, threshold).unwrap();
        let read = |name: &str| image::open(output.path().join("pictures").join(name)).unwrap().to_rgb8();
        let lines = |name: &str| [0, 1, 2, 3, 4].map(|line| read_line(&read(name), line));
        assert_eq!(
            lines("missed_000_test_c.png"),
            ["test/c", "defect (scratch): missed", "score 2.0000", "threshold 5.0000", "map 0.000 to 9.000"]
                .map(str::to_owned)
        );
        assert_eq!(
            lines("false_alarm_000_test_b.png"),
            ["test/b", "normal: false alarm", "score 6.0000", "threshold 5.0000", "map 0.000 to 9.000"]
                .map(str::to_owned)
        );
        let found = read("found_000_test_d.png");
        let count = std::fs::read_dir(output.path().join("pictures")).unwrap().count();
        assert_eq!((count, read_line(&found, 0).as_str()), (3, "test/d"));
        // The image with the outline of its defect on the left, the map on the right: red at 9, dark at 0.
        let top = found.height() - 24;
        assert_eq!(found.get_pixel(9, top + 9).0, [255, 40, 40]);
        assert_eq!(found.get_pixel(10, top + 10).0, [90; 3]);
        let (high, low) = (found.get_pixel(68 + 2, top + 5).0, found.get_pixel(68 + 61, top + 5).0);
        assert!(high[0] > 100 && high[2] < 50 && low.iter().all(|&level| level < 60), "{high:?} {low:?}");
    }
}
