//! Patch embeddings: combines the feature maps of an image into one vector per patch.
//!
//! Feature extraction calls [`embed`] for each image and runs images in parallel. The maps are first transposed to
//! channels-last, so that each inner loop runs over contiguous channels.
//!
//! Sources: Roth et al. 2022 ("Towards Total Recall in Industrial Anomaly Detection", section 3.1), which pools the
//! 3×3 neighbourhood of each position and aligns the deeper layer bilinearly. The `Reference` variants follow the
//! code of `ExDD` (Aqeel et al. 2025). `PatchCore1024` is the embedding of patchcore-inspection in closed form.

use serde::{Deserialize, Serialize};

use super::backbone::ImageMap;

/// Channels of the two layers that [`Embedding::PatchCore1024`] requires.
const PATCHCORE_CHANNELS: [usize; 2] = [512, 1024];

/// How a position of a map is pooled with its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Neighbourhood {
    /// Mean of 3×3 positions with zero padding; the divisor is 9 at the border, too.
    #[default]
    Mean3,
    /// Mean of 3×3 positions without padding, which removes two rows and two columns. The first layer is then resized
    /// to its original grid by adaptive average pooling, deeper layers to the same grid by the [`Alignment`].
    Reference,
    /// No pooling.
    None,
}

/// How the map of a deeper layer is resized to the grid of the first layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Alignment {
    /// Bilinear interpolation with aligned pixel centres (`align_corners=False` in PyTorch).
    #[default]
    Bilinear,
    /// Adaptive average pooling: cell `i` of `m` is the mean of the source cells `⌊i·n/m⌋ .. ⌈(i+1)·n/m⌉` of `n`.
    AdaptiveAverage,
}

/// How the vectors of the layers are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Embedding {
    /// Concatenation.
    #[default]
    Concat,
    /// 1024 values from layers of 512 and 1024 channels:
    /// - 0..512: the first layer, filtered with the 3×3 kernel of 0.2 in the centre and 0.1 around it, zero padding;
    /// - 512..1024: the mean of channels `2c` and `2c + 1` of the deeper layer, 3×3 mean, bilinear alignment.
    ///
    /// Neighbourhood and alignment are part of the definition, so the options must hold their defaults.
    PatchCore1024,
}

/// Options of [`embed`]. The defaults are those of PatchCore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct EmbeddingOptions {
    /// Default: [`Neighbourhood::Mean3`].
    pub neighbourhood: Neighbourhood,
    /// Default: [`Alignment::Bilinear`].
    pub alignment: Alignment,
    /// Default: [`Embedding::Concat`].
    pub embedding: Embedding,
}

/// The patch vectors of one image, on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchGrid {
    /// Number of rows of patches.
    pub height: usize,
    /// Number of columns of patches.
    pub width: usize,
    /// Length of a patch vector.
    pub dimension: usize,
    /// Patch vectors: `[height, width, dimension]`, row-major.
    pub data: Vec<f32>,
}

/// Why maps cannot be embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum EmbeddingError {
    #[error("no layer was given")]
    NoMap,
    #[error("the `reference` neighbourhood needs maps of at least 3×3, not {height}×{width}")]
    MapTooSmall { height: usize, width: usize },
    /// The layers have other numbers of channels than 512 and 1024: `channels`.
    #[error("the `patchcore-1024` embedding needs two layers of 512 and 1024 channels, not {channels:?}")]
    PatchcoreChannels { channels: Vec<usize> },
    #[error("the `patchcore-1024` embedding takes no other neighbourhood or alignment than the default")]
    PatchcoreOptions,
}

/// A channels-last map: `[height, width, channels]`.
struct ChannelsLastMap {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<f32>,
}

/// A 3×3 filter: `(sum of all nine + extra · centre) / divisor`.
#[derive(Clone, Copy)]
struct Kernel3 {
    extra: f32,
    divisor: f32,
}

const MEAN: Kernel3 = Kernel3 { extra: 0.0, divisor: 9.0 };
const PATCHCORE_FIRST: Kernel3 = Kernel3 { extra: 1.0, divisor: 10.0 };

/// Embeds the maps of one image, shallowest layer first, on the grid of the first map.
///
/// The vector of a patch holds the channels of the layers in order (see [`Embedding`]). Single-threaded, with the same
/// bits wherever f32 arithmetic follows IEEE 754. NaN and infinities spread to neighbouring patches. Cost:
/// O(patches · channels) additions; memory: a few times the result.
///
/// # Panics
/// If the number of values of a map is 0 or differs from its shape.
///
/// # Errors
/// If no map is given, or the maps do not meet the requirements of the options.
pub fn embed(maps: &[ImageMap<'_>], options: EmbeddingOptions) -> Result<PatchGrid, EmbeddingError> {
    let Some(first) = maps.first() else {
        return Err(EmbeddingError::NoMap);
    };
    check(maps, options)?;
    let channels = |map: &ImageMap<'_>| match options.embedding {
        Embedding::Concat => map.channels,
        Embedding::PatchCore1024 => PATCHCORE_CHANNELS[0],
    };
    let (height, width) = (first.height, first.width);
    let dimension = maps.iter().map(channels).sum();
    let mut patches = PatchGrid { height, width, dimension, data: vec![0.0; height * width * dimension] };
    let mut offset = 0;
    for (index, map) in maps.iter().enumerate() {
        let grid = match options.embedding {
            Embedding::Concat => neighbours(map, options.neighbourhood),
            Embedding::PatchCore1024 if index == 0 => {
                filter(&ChannelsLastMap::from_map(map), PATCHCORE_FIRST)
            }
            Embedding::PatchCore1024 => filter(&ChannelsLastMap::from_map(map).mean_of_pairs(), MEAN),
        };
        if (grid.height, grid.width) == (height, width) {
            copy(&grid, &mut patches, offset);
        } else if index == 0 || options.alignment == Alignment::AdaptiveAverage {
            average_adaptively(&grid, &mut patches, offset);
        } else {
            interpolate(&grid, &mut patches, offset);
        }
        offset += grid.channels;
    }
    Ok(patches)
}

fn check(maps: &[ImageMap<'_>], options: EmbeddingOptions) -> Result<(), EmbeddingError> {
    for map in maps {
        let ImageMap { channels, height, width, data } = map;
        assert_eq!(data.len(), channels * height * width, "a map of {channels}×{height}×{width}");
        assert!(!data.is_empty(), "a map of {channels}×{height}×{width} has no position");
        if options.neighbourhood == Neighbourhood::Reference && (*height < 3 || *width < 3) {
            return Err(EmbeddingError::MapTooSmall { height: *height, width: *width });
        }
    }
    if options.embedding == Embedding::PatchCore1024 {
        let channels: Vec<usize> = maps.iter().map(|map| map.channels).collect();
        if channels != PATCHCORE_CHANNELS {
            return Err(EmbeddingError::PatchcoreChannels { channels });
        }
        if (options.neighbourhood, options.alignment) != (Neighbourhood::Mean3, Alignment::Bilinear) {
            return Err(EmbeddingError::PatchcoreOptions);
        }
    }
    Ok(())
}

fn neighbours(map: &ImageMap<'_>, neighbourhood: Neighbourhood) -> ChannelsLastMap {
    let grid = ChannelsLastMap::from_map(map);
    match neighbourhood {
        Neighbourhood::Mean3 => filter(&grid, MEAN),
        Neighbourhood::Reference => filter(&grid, MEAN).without_border(),
        Neighbourhood::None => grid,
    }
}

impl ChannelsLastMap {
    /// Positions that are transposed together (chosen: one cache line of f32).
    const BLOCK: usize = 16;

    fn from_map(map: &ImageMap<'_>) -> Self {
        let ImageMap { channels, height, width, data: planes } = *map;
        let positions = height * width;
        let mut data = vec![0.0; planes.len()];
        for (block, rows) in data.chunks_mut(Self::BLOCK * channels).enumerate() {
            let first = block * Self::BLOCK;
            let count = rows.len() / channels;
            for (channel, plane) in planes.chunks_exact(positions).enumerate() {
                for (position, &value) in plane[first..first + count].iter().enumerate() {
                    rows[position * channels + channel] = value;
                }
            }
        }
        Self { height, width, channels, data }
    }

    fn row(&self, y: usize) -> &[f32] {
        let size = self.width * self.channels;
        &self.data[y * size..(y + 1) * size]
    }

    fn at(&self, y: usize, x: usize) -> &[f32] {
        let start = (y * self.width + x) * self.channels;
        &self.data[start..start + self.channels]
    }

    fn mean_of_pairs(self) -> Self {
        let data = self.data.chunks_exact(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect();
        Self { channels: self.channels / 2, data, ..self }
    }

    /// Drops the outermost positions, which turns the result of a padded filter into that of an unpadded one.
    fn without_border(self) -> Self {
        let (height, width, channels) = (self.height - 2, self.width - 2, self.channels);
        let inner = |y| &self.row(y)[channels..(width + 1) * channels];
        let data = (1..=height).flat_map(|y| inner(y).iter().copied()).collect();
        Self { height, width, channels, data }
    }
}

impl PatchGrid {
    fn at_mut(&mut self, y: usize, x: usize, offset: usize, channels: usize) -> &mut [f32] {
        let start = (y * self.width + x) * self.dimension + offset;
        &mut self.data[start..start + channels]
    }
}

/// Applies a 3×3 filter with zero padding: sums three rows, then three columns.
fn filter(grid: &ChannelsLastMap, kernel: Kernel3) -> ChannelsLastMap {
    let channels = grid.channels;
    let mut data = Vec::with_capacity(grid.data.len());
    // One position of zeros on each side, so that the border columns need no special case.
    let mut sums = vec![0.0; (grid.width + 2) * channels];
    for y in 0..grid.height {
        let inner = &mut sums[channels..(grid.width + 1) * channels];
        inner.copy_from_slice(grid.row(y));
        for other in [y.checked_sub(1), Some(y + 1).filter(|&next| next < grid.height)].into_iter().flatten()
        {
            inner.iter_mut().zip(grid.row(other)).for_each(|(sum, value)| *sum += value);
        }
        let beside = sums.iter().zip(&sums[channels..]).zip(&sums[2 * channels..]);
        data.extend(beside.zip(grid.row(y)).map(|(((left, here), right), centre)| {
            (left + here + right + kernel.extra * centre) / kernel.divisor
        }));
    }
    ChannelsLastMap { data, ..*grid }
}

fn copy(grid: &ChannelsLastMap, patches: &mut PatchGrid, offset: usize) {
    for y in 0..grid.height {
        for x in 0..grid.width {
            patches.at_mut(y, x, offset, grid.channels).copy_from_slice(grid.at(y, x));
        }
    }
}

fn average_adaptively(grid: &ChannelsLastMap, patches: &mut PatchGrid, offset: usize) {
    let window = |index: usize, from: usize, to: usize| index * from / to..((index + 1) * from).div_ceil(to);
    for y in 0..patches.height {
        let rows = window(y, grid.height, patches.height);
        for x in 0..patches.width {
            let columns = window(x, grid.width, patches.width);
            let target = patches.at_mut(y, x, offset, grid.channels);
            for (row, column) in rows.clone().flat_map(|row| columns.clone().map(move |column| (row, column)))
            {
                target.iter_mut().zip(grid.at(row, column)).for_each(|(sum, value)| *sum += value);
            }
            let count = (rows.len() * columns.len()) as f32;
            for sum in target {
                *sum /= count;
            }
        }
    }
}

fn interpolate(grid: &ChannelsLastMap, patches: &mut PatchGrid, offset: usize) {
    for y in 0..patches.height {
        let (top, bottom, down) = neighbours_of(y, grid.height, patches.height);
        for x in 0..patches.width {
            let (left, right, across) = neighbours_of(x, grid.width, patches.width);
            let weights =
                [(1.0 - down) * (1.0 - across), (1.0 - down) * across, down * (1.0 - across), down * across];
            let upper = grid.at(top, left).iter().zip(grid.at(top, right));
            let lower = grid.at(bottom, left).iter().zip(grid.at(bottom, right));
            let target = patches.at_mut(y, x, offset, grid.channels);
            for (value, ((a, b), (c, d))) in target.iter_mut().zip(upper.zip(lower)) {
                *value = weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d;
            }
        }
    }
}

/// Returns the two source cells around the centre of target cell `index`, and the weight of the second.
fn neighbours_of(index: usize, from: usize, to: usize) -> (usize, usize, f32) {
    let centre = ((index as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
    let first = (centre as usize).min(from - 1);
    (first, (first + 1).min(from - 1), (centre - first as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    /// Rounding error of at most ten additions of numbers near 1.
    const TOLERANCE: f32 = 2e-6;

    struct Owned([usize; 3], Vec<f32>);

    impl Owned {
        fn random(channels: usize, height: usize, width: usize) -> Self {
            let mut rng = Rng::new(1, &format!("{channels} {height} {width}"));
            let data = (0..channels * height * width).map(|_| rng.normal() as f32).collect();
            Self([channels, height, width], data)
        }

        fn view(&self) -> ImageMap<'_> {
            let [channels, height, width] = self.0;
            ImageMap { channels, height, width, data: &self.1 }
        }

        /// The value at a position, zero outside.
        fn at(&self, c: usize, y: isize, x: isize) -> f64 {
            let [_, height, width] = self.0;
            let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
            if inside { f64::from(self.1[(c * height + y as usize) * width + x as usize]) } else { 0.0 }
        }

        fn mean3(&self, c: usize, y: usize, x: usize) -> f64 {
            let (y, x) = (y as isize, x as isize);
            (-1..=1)
                .flat_map(|i| (-1..=1).map(move |j| (i, j)))
                .map(|(i, j)| self.at(c, y + i, x + j))
                .sum::<f64>()
                / 9.0
        }
    }

    fn naive_bilinear(
        size: [usize; 2],
        target: [usize; 2],
        at: [usize; 2],
        value: impl Fn(usize, usize) -> f64,
    ) -> f64 {
        let mut sum = 0.0;
        for (y, x) in (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x))) {
            let hat = |axis: usize, cell: usize| {
                let centre = (at[axis] as f64 + 0.5) * size[axis] as f64 / target[axis] as f64 - 0.5;
                (1.0 - (centre.clamp(0.0, size[axis] as f64 - 1.0) - cell as f64).abs()).max(0.0)
            };
            sum += hat(0, y) * hat(1, x) * value(y, x);
        }
        sum
    }

    fn naive_adaptive(
        size: [usize; 2],
        target: [usize; 2],
        at: [usize; 2],
        value: impl Fn(usize, usize) -> f64,
    ) -> f64 {
        let covers = |axis: usize, cell: usize| {
            (cell + 1) * target[axis] > at[axis] * size[axis]
                && cell * target[axis] < (at[axis] + 1) * size[axis]
        };
        let cells = (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x)));
        let taken: Vec<f64> =
            cells.filter(|&(y, x)| covers(0, y) && covers(1, x)).map(|(y, x)| value(y, x)).collect();
        taken.iter().sum::<f64>() / taken.len() as f64
    }

    fn assert_close(patches: &PatchGrid, expected: impl Fn(usize, usize, usize) -> f64) {
        for (index, &value) in patches.data.iter().enumerate() {
            let (position, dimension) = (index / patches.dimension, index % patches.dimension);
            let expected = expected(position / patches.width, position % patches.width, dimension) as f32;
            assert!((value - expected).abs() < TOLERANCE, "{value} {expected} at {index}");
        }
    }

    #[test]
    fn the_default_equals_its_definition_for_all_small_sizes() {
        for side in 1..=20 {
            let (first, deep) = (Owned::random(2, side, 7), Owned::random(3, side.div_ceil(2), 4));
            let patches = embed(&[first.view(), deep.view()], EmbeddingOptions::default()).unwrap();
            assert_eq!((patches.height, patches.width, patches.dimension), (side, 7, 5));
            assert_close(&patches, |y, x, d| match d {
                0..2 => first.mean3(d, y, x),
                _ => naive_bilinear([deep.0[1], 4], [side, 7], [y, x], |i, j| deep.mean3(d - 2, i, j)),
            });
        }
    }

    #[test]
    fn the_reference_equals_its_definition_for_all_small_sizes() {
        let options = EmbeddingOptions {
            neighbourhood: Neighbourhood::Reference,
            alignment: Alignment::AdaptiveAverage,
            ..EmbeddingOptions::default()
        };
        for side in 3..=20 {
            let (first, deep) = (Owned::random(2, side, 7), Owned::random(3, side.div_ceil(2).max(3), 4));
            let patches = embed(&[first.view(), deep.view()], options).unwrap();
            assert_close(&patches, |y, x, d| {
                let (map, channel) = if d < 2 { (&first, d) } else { (&deep, d - 2) };
                let [_, height, width] = map.0;
                let inner = |i, j| map.mean3(channel, i + 1, j + 1);
                naive_adaptive([height - 2, width - 2], [side, 7], [y, x], inner)
            });
        }
    }

    #[test]
    fn no_neighbourhood_only_aligns() {
        let (first, deep) = (Owned::random(2, 5, 6), Owned::random(1, 2, 2));
        for alignment in [Alignment::Bilinear, Alignment::AdaptiveAverage] {
            let options = EmbeddingOptions {
                neighbourhood: Neighbourhood::None,
                alignment,
                ..EmbeddingOptions::default()
            };
            let patches = embed(&[first.view(), deep.view()], options).unwrap();
            let value = |i: usize, j: usize| deep.at(0, i as isize, j as isize);
            assert_close(&patches, |y, x, d| match (d, alignment) {
                (0..2, _) => first.at(d, y as isize, x as isize),
                (_, Alignment::Bilinear) => naive_bilinear([2, 2], [5, 6], [y, x], value),
                (_, Alignment::AdaptiveAverage) => naive_adaptive([2, 2], [5, 6], [y, x], value),
            });
        }
    }

    #[test]
    fn patchcore_1024_equals_its_closed_form() {
        let (first, deep) = (Owned::random(512, 5, 3), Owned::random(1024, 3, 2));
        let options = EmbeddingOptions { embedding: Embedding::PatchCore1024, ..EmbeddingOptions::default() };
        let patches = embed(&[first.view(), deep.view()], options).unwrap();
        assert_eq!(patches.dimension, 1024);
        let pair = |c: usize| {
            let (even, odd) = (2 * c, 2 * c + 1);
            let deep = &deep;
            move |i, j| f64::midpoint(deep.mean3(even, i, j), deep.mean3(odd, i, j))
        };
        assert_close(&patches, |y, x, d| match d.checked_sub(512) {
            None => 0.9 * first.mean3(d, y, x) + 0.1 * first.at(d, y as isize, x as isize),
            Some(c) => naive_bilinear([3, 2], [5, 3], [y, x], pair(c)),
        });
    }

    #[test]
    fn a_constant_map_stays_constant_inside() {
        let map = Owned([1, 4, 5], vec![3.0; 20]);
        let patches = embed(&[map.view()], EmbeddingOptions::default()).unwrap();
        assert!((patches.data[6] - 3.0).abs() < TOLERANCE);
        assert!((patches.data[0] - 3.0 * 4.0 / 9.0).abs() < TOLERANCE, "outside counts as zero");
    }

    #[test]
    fn wrong_requests_are_refused() {
        let small = Owned::random(1, 2, 9);
        let reference =
            EmbeddingOptions { neighbourhood: Neighbourhood::Reference, ..EmbeddingOptions::default() };
        let patchcore =
            EmbeddingOptions { embedding: Embedding::PatchCore1024, ..EmbeddingOptions::default() };
        assert_eq!(embed(&[], patchcore), Err(EmbeddingError::NoMap));
        let too_small = EmbeddingError::MapTooSmall { height: 2, width: 9 };
        assert_eq!(embed(&[small.view()], reference), Err(too_small));
        let channels = EmbeddingError::PatchcoreChannels { channels: vec![1] };
        assert_eq!(embed(&[small.view()], patchcore), Err(channels));
        let (first, deep) = (Owned::random(512, 3, 3), Owned::random(1024, 3, 3));
        let both = EmbeddingOptions { neighbourhood: Neighbourhood::None, ..patchcore };
        assert_eq!(embed(&[first.view(), deep.view()], both), Err(EmbeddingError::PatchcoreOptions));
    }
}
