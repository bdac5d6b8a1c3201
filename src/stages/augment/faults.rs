//! Samples that are no defect: a generator that fails paints black, one colour, clipped noise, or nothing at all. They are
//! left out of the set, and the table of provenance says why.

use super::super::{Context, StageError};
use super::provenance::SampleOrigin;

/// Greatest difference of a channel at which a pixel counts as unchanged, and a region as of one colour, in levels.
const ROUNDING: u8 = 1;
/// Greatest level of black: JPEG and resizing leave so much (chosen).
const BLACK: u8 = 3;
/// Share of the channels' values at the ends of the scale from which on a region is clipped (chosen).
const CLIPPED: f64 = 0.9;
/// Pixels below which one colour says nothing (chosen).
const FEW_PIXELS: usize = 9;

/// Why a sample is no defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// It equals the normal image inside the mask.
    Unchanged,
    /// It is black inside the mask.
    Black,
    /// It has one colour inside the mask.
    Constant,
    /// Nearly all levels inside the mask are 0 or 255.
    Saturated,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Unchanged, Self::Black, Self::Constant, Self::Saturated];

    /// Returns the name in `provenance.csv`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Black => "black",
            Self::Constant => "constant",
            Self::Saturated => "saturated",
        }
    }
}

/// Finds the fault of a region by the colours of its pixels.
pub(super) fn of_region(colours: impl Iterator<Item = [u8; 3]> + Clone) -> Option<Fault> {
    let (mut low, mut high, mut count, mut ends) = ([u8::MAX; 3], [0; 3], 0, 0);
    for colour in colours {
        count += 1;
        for channel in 0..3 {
            let level = colour[channel];
            low[channel] = low[channel].min(level);
            high[channel] = high[channel].max(level);
            ends += usize::from(matches!(level, 0 | u8::MAX));
        }
    }
    if count == 0 {
        return None;
    }
    if high.iter().all(|&level| level <= BLACK) {
        return Some(Fault::Black);
    }
    let is_constant = low.iter().zip(high).all(|(&low, high)| high - low <= ROUNDING);
    if is_constant && count >= FEW_PIXELS {
        return Some(Fault::Constant);
    }
    (ends as f64 >= CLIPPED * (3 * count) as f64).then_some(Fault::Saturated)
}

/// Finds the fault of a sample by the colours inside its mask before and after. What real defects look like is no fault:
/// `real` holds what [`of_region`] finds in them.
pub(super) fn of_sample(
    changes: impl Iterator<Item = ([u8; 3], [u8; 3])> + Clone,
    real: &[Fault],
) -> Option<Fault> {
    let is_unchanged = |(before, after): ([u8; 3], [u8; 3])| {
        before.iter().zip(after).all(|(&before, after)| before.abs_diff(after) <= ROUNDING)
    };
    if changes.clone().all(is_unchanged) {
        return Some(Fault::Unchanged);
    }
    of_region(changes.map(|(_, after)| after)).filter(|fault| !real.contains(fault))
}

/// Logs how many samples are left out and why.
///
/// # Errors
/// [`StageError::Data`] if no sample is left.
pub(super) fn report(origins: &[SampleOrigin], context: &Context<'_>) -> Result<(), StageError> {
    let counted = Fault::ALL.map(|fault| {
        let of_kind: Vec<&SampleOrigin> =
            origins.iter().filter(|origin| origin.fault == Some(fault)).collect();
        (fault, of_kind)
    });
    let counted: Vec<String> = counted
        .iter()
        .filter(|(_, origins)| !origins.is_empty())
        .map(|(fault, origins)| format!("{} {} (`{}`)", origins.len(), fault.name(), origins[0].id))
        .collect();
    if counted.is_empty() {
        return Ok(());
    }
    let (counted, all) = (counted.join(", "), origins.len());
    if origins.iter().all(|origin| origin.fault.is_some()) {
        return Err(StageError::data(
            format!("none of {all} samples is a defect: inside their masks they are {counted}"),
            "look at the settings of `method`: the prompts, the steps, and whether the masks mark the defects",
        ));
    }
    context.progress.warn(&format!(
        "left out of {all} samples, since they show no defect inside their masks: {counted}; the column `fault` of \
         `provenance.csv` names each"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: [u8; 3] = [100; 3];

    fn sample(after: &[[u8; 3]], real: &[Fault]) -> Option<Fault> {
        of_sample(after.iter().map(|&after| (GREY, after)), real)
    }

    #[test]
    fn each_fault_is_found_and_a_change_is_none() {
        let varied: Vec<[u8; 3]> = (0..20).map(|level| [120 + 3 * level, 90, 80]).collect();
        assert_eq!(sample(&varied, &[]), None);
        assert_eq!(sample(&[[101, 99, 100]; 20], &[]), Some(Fault::Unchanged));
        assert_eq!(sample(&[[102, 100, 100]; 20], &[]), Some(Fault::Constant), "changed by two levels");
        assert_eq!(sample(&[[0, 3, 1]; 20], &[]), Some(Fault::Black));
        assert_eq!(sample(&[[0, 4, 1]; 20], &[]), Some(Fault::Constant), "nearly black");
        assert_eq!(sample(&[[240, 30, 30]; 20], &[]), Some(Fault::Constant));
        assert_eq!(sample(&[[240, 30, 30]; FEW_PIXELS - 1], &[]), None, "few pixels may be alike");
        let mut clipped: Vec<[u8; 3]> = (0..20).map(|index| [0, 255, (index % 2) * 255]).collect();
        assert_eq!(sample(&clipped, &[]), Some(Fault::Saturated));
        clipped[..3].fill([0, 77, 78]);
        assert_eq!(sample(&clipped, &[]), Some(Fault::Saturated), "6 of 60 values are not at an end");
        clipped[3][0] = 9;
        assert_eq!(sample(&clipped, &[]), None, "7 of 60");
    }

    #[test]
    fn what_real_defects_look_like_is_no_fault() {
        assert_eq!(sample(&[[0; 3]; 20], &[Fault::Black]), None);
        assert_eq!(sample(&[[255; 3]; 20], &[Fault::Constant]), None);
        assert_eq!(sample(&[[255; 3]; 20], &[Fault::Black]), Some(Fault::Constant));
        assert_eq!(sample(&[GREY; 20], &[Fault::Constant]), Some(Fault::Unchanged), "but no change is");
    }

    #[test]
    fn no_pixel_is_no_change() {
        assert_eq!(sample(&[], &[]), Some(Fault::Unchanged));
        assert_eq!(of_region(std::iter::empty()), None);
    }
}
