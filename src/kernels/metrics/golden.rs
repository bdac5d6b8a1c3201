//! Golden numbers of the metrics, from scikit-learn, scipy and numpy.
//!
//! Made by `tests/golden/metrics.py` with numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1 and Python 3.11.7.
//! Data are made here by the same integer formulas as there. AUPRO is the MVTec AD authors' definition,
//! which the script computes in two ways.

use super::{MetricError, PixelScores, PixelStatistics, auroc, average_precision, f1_max};

pub(super) const IMAGES: usize = 24;
pub(super) const HEIGHT: usize = 40;
pub(super) const WIDTH: usize = 32;

/// Multiples of 2^-24 in [0, 1): splitmix64 (Steele et al. 2014) of the index.
pub(super) fn uniform(index: usize) -> f32 {
    let mut z = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f32 / (1 << 24) as f32
}

/// Every third image has one to three rectangles, half of those a diagonal as well.
pub(super) fn mask(image: usize) -> Vec<u8> {
    let mut mask = vec![0; HEIGHT * WIDTH];
    if image % 3 != 2 {
        return mask;
    }
    for j in 0..=(image / 3 % 3) {
        let (top, left) = ((5 * image + 13 * j) % 30, (3 * image + 9 * j) % 24);
        for row in top..HEIGHT.min(top + 2 + (image + j) % 7) {
            for column in left..WIDTH.min(left + 2 + image * j % 6) {
                mask[row * WIDTH + column] = 1;
            }
        }
    }
    if image.is_multiple_of(2) {
        for row in 0..8 {
            mask[row * WIDTH + 31 - row] = 1;
        }
    }
    mask
}

/// Uniform noise, shifted by image, lifted where the mask is set.
pub(super) fn map(image: usize, mask: &[u8]) -> Vec<f32> {
    let shift = 0.5 * uniform(1_000_000 + image);
    let score = |(pixel, &value): (usize, &u8)| {
        uniform(image * HEIGHT * WIDTH + pixel) + shift + if value == 0 { 0.0 } else { 0.35 }
    };
    mask.iter().enumerate().map(score).collect()
}

/// Rounds down to sixteenths, so that nearly all scores are tied.
pub(super) fn tie(score: f32) -> f32 {
    (score * 16.0).floor() / 16.0
}

/// Adds the images given, each score passed through `change`.
pub(super) fn pixel_scores(
    images: impl IntoIterator<Item = usize>,
    change: impl Fn(f32) -> f32,
) -> Result<PixelScores, MetricError> {
    let mut scores = PixelScores::new();
    for image in images {
        let mask = mask(image);
        let map: Vec<f32> = map(image, &mask).into_iter().map(&change).collect();
        scores.add(&map, &mask, HEIGHT, WIDTH)?;
    }
    Ok(scores)
}

/// Counts the images given in bins of their own scores.
pub(super) fn pixel_statistics(
    images: &[usize],
    change: impl Fn(f32) -> f32,
    bins: usize,
) -> PixelStatistics {
    let bins = pixel_scores(images.iter().copied(), &change).unwrap().bins(bins).unwrap();
    let count = |&image: &usize| {
        let mask = mask(image);
        let map: Vec<f32> = map(image, &mask).into_iter().map(&change).collect();
        bins.count(&map, &mask, HEIGHT, WIDTH).unwrap()
    };
    PixelStatistics::new(&bins, images.iter().map(count).collect(), 0.3)
}

/// Ninety images, every fourth defective.
pub(super) fn image_scores() -> (Vec<f32>, Vec<bool>) {
    let labels: Vec<bool> = (0..90).map(|image| image % 4 == 1).collect();
    let lift = |label: bool| if label { 0.4 } else { 0.0 };
    let scores = labels.iter().enumerate().map(|(image, &label)| uniform(2_000_000 + image) + lift(label));
    (scores.collect(), labels)
}

#[track_caller]
fn assert_close(found: f64, golden: f64) {
    // Sums of a few hundred terms in another order.
    assert!((found - golden).abs() < 1e-12, "found {found:.17}, golden {golden:.17}");
}

#[test]
fn pixel_metrics_agree_with_the_golden_numbers() {
    let scores = pixel_scores(0..IMAGES, |score| score).unwrap();
    let found = scores.clone().finish(0.3).unwrap();
    assert_eq!((found.positives, found.negatives), (343, 30_377));
    assert_close(found.auroc, 0.751_715_732_451_022_9);
    assert_close(found.average_precision, 0.150_092_462_646_658_9);
    assert_close(found.f1_max, 0.187_050_359_712_230_22);
    assert_close(f64::from(found.f1_max_threshold), 1.474_561_810_493_469_2);
    assert_close(found.aupro, 0.421_649_247_399_295_27);
    assert_close(scores.clone().finish(0.05).unwrap().aupro, 0.209_536_256_318_501_9);
    assert_close(scores.finish(1.0).unwrap().aupro, 0.736_749_286_319_371_1);
}

#[test]
fn tied_pixel_metrics_agree_with_the_golden_numbers() {
    let scores = pixel_scores(0..IMAGES, tie).unwrap();
    let found = scores.clone().finish(0.3).unwrap();
    assert_close(found.auroc, 0.750_620_218_553_798_8);
    assert_close(found.average_precision, 0.129_781_958_175_540_1);
    assert_close(found.f1_max, 0.180_451_127_819_548_86);
    assert_close(f64::from(found.f1_max_threshold), 1.4375);
    assert_close(found.aupro, 0.419_255_965_038_114_6);
    assert_close(scores.clone().finish(0.05).unwrap().aupro, 0.206_860_108_581_483_43);
    assert_close(scores.finish(1.0).unwrap().aupro, 0.735_497_191_937_709_2);
}

#[test]
fn image_metrics_agree_with_the_golden_numbers() {
    let (scores, labels) = image_scores();
    assert_close(auroc(&scores, &labels).unwrap(), 0.744_970_798_182_998);
    assert_close(average_precision(&scores, &labels).unwrap(), 0.598_732_631_323_398);
    let best = f1_max(&scores, &labels).unwrap();
    assert_close(best.f1, 0.536_585_365_853_658_5);
    assert_close(f64::from(best.threshold), 0.473_830_550_909_042_36);
    assert_close(best.precision, 0.372_881_355_932_203_4);
    assert_close(best.recall, 0.956_521_739_130_434_8);
}

#[test]
fn tied_image_metrics_agree_with_the_golden_numbers() {
    let (scores, labels) = image_scores();
    let scores: Vec<f32> = scores.into_iter().map(tie).collect();
    assert_close(auroc(&scores, &labels).unwrap(), 0.748_215_444_516_547_6);
    assert_close(average_precision(&scores, &labels).unwrap(), 0.597_955_719_052_938_8);
    let best = f1_max(&scores, &labels).unwrap();
    assert_close(best.f1, 0.534_883_720_930_232_5);
    assert_close(f64::from(best.threshold), 0.375);
    assert_close(best.precision, 0.365_079_365_079_365_06);
    assert_close(best.recall, 1.0);
}
