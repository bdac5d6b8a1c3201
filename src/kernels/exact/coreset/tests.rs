//! The picks equal those of the textbook to the bit.
#![expect(clippy::float_cmp, reason = "these results are promised to the bit")]

use super::*;
use crate::kernels::backbone::Backend;
use crate::kernels::distance::squared_euclidean;
use crate::kernels::product::int8::Int8Simd;

/// The textbook algorithm, starting from given distances.
fn textbook(points: &[f32], d: usize, mut bounds: Vec<f32>, first: Option<usize>, count: usize) -> Picks {
    let row = |index: usize| &points[index * d..][..d];
    let mut picks = Picks { rows: Vec::new(), radii: Vec::new() };
    let mut is_picked = vec![false; bounds.len()];
    let mut next = first;
    loop {
        let mut best: Option<usize> = None;
        for (index, &bound) in bounds.iter().enumerate() {
            if !is_picked[index] && best.is_none_or(|best| bound > bounds[best]) {
                best = Some(index);
            }
        }
        if !picks.rows.is_empty() {
            picks.radii.push(best.map_or(0.0, |best| bounds[best].sqrt()));
        }
        if picks.rows.len() == count {
            return picks;
        }
        let pick = next.take().or(best).unwrap();
        picks.rows.push(pick as u32);
        is_picked[pick] = true;
        for (index, bound) in bounds.iter_mut().enumerate() {
            *bound = bound.min(squared_euclidean(row(index), row(pick)));
        }
    }
}

fn greedy(points: &[f32], d: usize, first: usize, count: usize) -> Picks {
    Points::new(points, d).unwrap().k_center_greedy(first, count, &|_| true).unwrap()
}

/// Upper bounds that are exact, slightly or much too high, or missing: the search must give the same picks with any
/// of them.
struct Loose<'a> {
    points: &'a [f32],
    d: usize,
    least: Vec<f32>,
    stream: Rng,
}

impl<'a> Loose<'a> {
    fn new(points: &'a [f32], d: usize) -> Self {
        Self { points, d, least: vec![f32::INFINITY; points.len() / d], stream: Rng::new(1, "loose") }
    }
}

impl UpperBounds for Loose<'_> {
    fn lower(&mut self, picks: &[u32], bounds: &mut [f32]) -> Result<(), KernelError> {
        let row = |index: usize| &self.points[index * self.d..][..self.d];
        for (point, (bound, least)) in bounds.iter_mut().zip(&mut self.least).enumerate() {
            for &pick in picks {
                *least = least.min(squared_euclidean(row(point), row(pick as usize)));
            }
            *bound = bound.min(match self.stream.below(4) {
                0 => *least,
                1 => least.next_up(),
                2 => *least * 1.5,
                _ => f32::INFINITY,
            });
        }
        Ok(())
    }
}

/// Returns the sources of upper bounds that every machine can run.
fn upper_bounds<'a>(points: &'a [f32], d: usize) -> Vec<Box<dyn UpperBounds + 'a>> {
    vec![
        Box::new(NoUpperBounds),
        Box::new(Loose::new(points, d)),
        #[cfg(feature = "torch")]
        device_upper_bounds(Device::Cpu, points, d, &norms_for(points, d).unwrap()).unwrap(),
    ]
}

/// Returns the picks of every implementation: all filters, whichever of them this processor would use, with each
/// source of upper bounds.
fn by_all_ways(points: &[f32], d: usize, first: usize, count: usize) -> Vec<Picks> {
    let norms = norms_for(points, d).unwrap();
    let mut found = Vec::new();
    let start = || squared_distances(points, d, &points[first * d..][..d]);
    for simd in [Int8Simd::Vnni, Int8Simd::Avx2] {
        for mut upper in upper_bounds(points, d) {
            let filter = Int8Filter::about_mean(simd, points, d);
            let search = Search::new(points, d, &norms, start(), Some(first), filter);
            found.push(search.run(count, &mut *upper, &|_| true).unwrap());
        }
    }
    for mut upper in upper_bounds(points, d) {
        let filter = F32Filter::new(Vec::new(), &[], d);
        let search = Search::new(points, d, &norms, start(), Some(first), filter);
        found.push(search.run(count, &mut *upper, &|_| true).unwrap());
    }
    found
}

fn normals(stream: &mut Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| stream.normal() as f32).collect()
}

#[test]
fn small_sizes_equal_the_textbook_with_ties() {
    let mut stream = Rng::new(1, "coreset");
    for n in 1..=20 {
        for d in [1, 2, 3] {
            let points: Vec<f32> = (0..n * d).map(|_| stream.below(4) as f32).collect();
            let first = stream.below(n);
            for count in 1..=n {
                let start = vec![f32::INFINITY; n];
                let expected = textbook(&points, d, start, Some(first), count);
                assert_eq!(greedy(&points, d, first, count), expected, "n {n}, d {d}, count {count}");
                for found in by_all_ways(&points, d, first, count) {
                    assert_eq!(found, expected, "n {n}, d {d}, count {count}");
                }
            }
        }
    }
}

/// Rows of one of five kinds: none of them special, ties on a grid, duplicates, tight groups far from the origin
/// (where a matrix product cancels), one row over and over.
fn random_case(stream: &mut Rng, kind: usize, n: usize, d: usize) -> Vec<f32> {
    let mut points = normals(stream, n * d);
    match kind {
        0 => {}
        1 => points.iter_mut().for_each(|x| *x = x.round()),
        2 => (1..n).for_each(|row| {
            let other = stream.below(row);
            if stream.below(3) > 0 {
                points.copy_within(other * d..(other + 1) * d, row * d);
            }
        }),
        3 => {
            let centres = normals(stream, 5 * d);
            for point in points.chunks_mut(d) {
                let centre = &centres[stream.below(5) * d..][..d];
                point.iter_mut().zip(centre).for_each(|(x, c)| *x = *x * 0.01 + 30.0 * c + 100.0);
            }
        }
        _ => (1..n).for_each(|row| points.copy_within(..d, row * d)),
    }
    points
}

#[test]
fn random_cases_equal_the_textbook() {
    let mut stream = Rng::new(7, "coreset");
    for case in 0..200 {
        let (n, d) = (1 + stream.below(500), 1 + stream.below(if case % 2 == 0 { 8 } else { 140 }));
        let points = random_case(&mut stream, case % 5, n, d);
        let (first, count) = (stream.below(n), 1 + stream.below(n));
        let expected = textbook(&points, d, vec![f32::INFINITY; n], Some(first), count);
        for found in by_all_ways(&points, d, first, count) {
            assert_eq!(found, expected, "case {case}: n {n}, d {d}, count {count}");
        }
    }
}

#[test]
fn larger_sets_equal_the_textbook() {
    let mut stream = Rng::new(2, "coreset");
    let centres = normals(&mut stream, 12 * 40);
    for (n, d, spread) in [(3000, 40, 0.0), (3000, 40, 5.0), (5000, 2, 0.0), (900, 130, 0.0)] {
        let mut points = normals(&mut stream, n * d);
        for (row, point) in points.chunks_mut(d).enumerate() {
            let centre = &centres[(row * 7 % 12) * 40..];
            point.iter_mut().zip(centre).for_each(|(x, c)| *x = *x * 0.3 + spread * c + spread);
        }
        let start = vec![f32::INFINITY; n];
        let expected = textbook(&points, d, start, Some(17), 150);
        for found in by_all_ways(&points, d, 17, 150) {
            assert_eq!(found, expected, "n {n}, d {d}, spread {spread}");
        }
    }
}

#[test]
fn many_equal_points_are_taken_in_order() {
    let points: Vec<f32> = (0..3000).map(|row| (row % 3) as f32).collect();
    let picks = greedy(&points, 1, 1, 3000);
    assert_eq!(picks.rows[..6], [1, 0, 2, 3, 4, 5]);
    assert_eq!(picks.rows[2999], 2999);
    assert_eq!(picks.radii[..3], [1.0, 1.0, 0.0]);
}

#[test]
fn threads_change_nothing() {
    let mut stream = Rng::new(3, "coreset");
    let points = normals(&mut stream, 4000 * 16);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let projection = Projection::new(16, 8, &mut Rng::new(5, "project"));
            let read = |block: usize| Ok::<_, KernelError>(points[block * 16_000..][..16_000].to_vec());
            let projected = projection.apply_blocks(&[1000; 4], read).unwrap();
            (greedy(&points, 16, 0, 300), projected)
        })
    };
    assert!([2, 4, 5].iter().all(|&threads| run(threads) == run(1)));
}

#[test]
fn the_radius_covers_every_point_and_never_grows() {
    let mut stream = Rng::new(4, "coreset");
    let (n, d) = (500, 6);
    let points = normals(&mut stream, n * d);
    let picks = greedy(&points, d, 3, 60);
    assert!(picks.radii.windows(2).all(|pair| pair[1] <= pair[0]));
    let nearest = |point: &[f32]| {
        let distances =
            picks.rows.iter().map(|&row| squared_euclidean(point, &points[row as usize * d..][..d]));
        distances.fold(f32::INFINITY, f32::min).sqrt()
    };
    assert_eq!(points.chunks(d).map(nearest).fold(0.0, f32::max), picks.radii[59]);
}

#[test]
fn from_any_first_point_each_cluster_gets_one_row_and_the_radii_are_those_of_the_picks() {
    let centres = [0.0_f32, 10.0, 100.0, 1000.0];
    let points: Vec<f32> =
        (0..20).flat_map(|row| [centres[row % 4] + (row / 4) as f32 * 0.01, -1.0]).collect();
    for first in 0..20 {
        let picks = greedy(&points, 2, first, 20);
        assert_eq!(picks.rows[0], first as u32);
        let distinct: std::collections::BTreeSet<u32> = picks.rows.iter().copied().collect();
        assert_eq!(distinct.len(), 20, "first {first}");
        let clusters: std::collections::BTreeSet<u32> = picks.rows[..4].iter().map(|row| row % 4).collect();
        assert_eq!(clusters.len(), 4, "first {first}: {:?}", &picks.rows[..4]);
        for count in 1..=20 {
            let nearest = |point: &[f32]| {
                let of_picks = picks.rows[..count].iter().map(|&row| &points[row as usize * 2..][..2]);
                of_picks.map(|pick| squared_euclidean(point, pick)).fold(f32::INFINITY, f32::min).sqrt()
            };
            assert_eq!(points.chunks(2).map(nearest).fold(0.0, f32::max), picks.radii[count - 1]);
        }
    }
}

#[test]
fn the_approximate_greedy_starts_from_mean_distances() {
    let mut stream = Rng::new(5, "coreset");
    let (n, d) = (400, 5);
    let points = normals(&mut stream, n * d);
    let anchors = Rng::new(9, "anchors").choose(n, 10);
    let mean = |point: &[f32]| {
        let distances = anchors.iter().map(|&row| squared_euclidean(point, &points[row * d..][..d]));
        (distances.map(|squared| f64::from(squared).sqrt()).sum::<f64>() / 10.0).powi(2) as f32
    };
    let expected = textbook(&points, d, points.chunks(d).map(mean).collect(), None, 40);
    let mut anchors = Rng::new(9, "anchors");
    let points = Points::new(&points, d).unwrap();
    assert_eq!(points.approximate_greedy(40, 10, &mut anchors, &|_| true), Ok(expected));
}

#[test]
fn cancelling_and_wrong_data_are_errors() {
    let points = [0.0, 1.0, 2.0, 3.0];
    let points = Points::new(&points, 1).unwrap();
    assert_eq!(points.k_center_greedy(0, 4, &|picks| picks < 2), Err(KernelError::Cancelled));
    assert_eq!(Points::new(&[0.0, f32::NAN], 1).unwrap_err(), KernelError::NotFinite { row: 1 });
}

#[test]
fn bank_sizes_are_capped() {
    assert_eq!(bank_size(200_000, 0.01, 1000), 2000);
    assert_eq!(bank_size(5000, 0.01, 1000), 1000);
    assert_eq!(bank_size(300, 0.1, 1000), 300);
    assert_eq!(bank_size(5000, 0.01, 0), 50);
    assert_eq!(bank_size(200, 0.01, 10), 10);
    assert_eq!(bank_size(20, 0.01, 0), 1);
    assert_eq!(bank_size(4, 0.01, 10), 4);
    assert_eq!(random_rows(5, 5, &mut Rng::new(1, "rows")), [0, 1, 2, 3, 4]);
}

/// Where numbers underflow or their squares overflow, upper bounds must be right or absent.
#[test]
fn every_scale_equals_the_textbook() {
    let mut stream = Rng::new(10, "coreset");
    let (n, d) = (300, 9);
    for scale in [1e-42, 1e-38, 1e-22, 1e-19, 1e-5, 1e5, 1e15, 1e18] {
        let mut points = random_case(&mut stream, 3, n, d);
        for x in &mut points {
            *x *= scale;
        }
        points[7 * d] = points[7 * d].abs().max(1e-45) * 3.0;
        let expected = textbook(&points, d, vec![f32::INFINITY; n], Some(3), 60);
        for mut upper in upper_bounds(&points, d) {
            let norms = norms_for(&points, d).unwrap();
            let bounds = squared_distances(&points, d, &points[3 * d..4 * d]);
            let search = Search::new(&points, d, &norms, bounds, Some(3), F32Filter::new(Vec::new(), &[], d));
            assert_eq!(search.run(60, &mut *upper, &|_| true).unwrap(), expected, "{scale}");
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let device = Device::Cuda(99);
    match Points::on(device, &[0.0, 1.0], 1).unwrap_err() {
        KernelError::NotBuilt { .. } => assert!(!Backend::Torch.is_built()),
        KernelError::NoDevice { device: found, .. } => assert_eq!(found, device),
        other => panic!("{other}"),
    }
}

#[cfg(feature = "torch")]
#[test]
#[ignore = "needs a CUDA GPU and a build against its PyTorch: LIBTORCH_USE_PYTORCH=1"]
fn a_gpu_picks_what_the_processor_picks() {
    let mut stream = Rng::new(11, "coreset");
    for kind in 0..5 {
        for (n, d, count) in [(500, 7, 500), (40_000, 128, 400), (5000, 600, 300)] {
            let rows = random_case(&mut stream, kind, n, d);
            let run = |device| Points::on(device, &rows, d).unwrap().k_center_greedy(5, count, &|_| true);
            assert_eq!(run(Device::Cuda(0)), run(Device::Cpu), "kind {kind}, n {n}, d {d}");
        }
    }
}
