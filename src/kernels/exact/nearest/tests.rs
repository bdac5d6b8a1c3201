//! The search equals brute force to the bit.
#![expect(clippy::float_cmp, reason = "these results are promised to the bit")]

use super::*;
use crate::kernels::backbone::Backend;
use crate::kernels::distance::squared_euclidean;
use crate::kernels::exact::device::Lowest;
use crate::kernels::exact::pca::PrincipalAxes;
use crate::kernels::product::inner_products;
use crate::kernels::random::Rng;

/// Creates a bank on one of the tested devices.
type Make = fn(&[f32], usize) -> SearchBank;

fn plain(rows: &[f32], d: usize) -> SearchBank {
    SearchBank::new(rows.to_vec(), d).unwrap()
}

/// A device whose bounds are computed by the CPU.
struct SimulatedDevice(F32Filter);

fn simulated(rows: &[f32], d: usize) -> SearchBank {
    let filter = F32Filter::new(rows.to_vec(), &squared_norms(rows, d).unwrap(), d);
    SearchBank { device: Some(Box::new(SimulatedDevice(filter))), ..plain(rows, d) }
}

impl DeviceLowerBounds for SimulatedDevice {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn queries_at_once(&self, _: usize) -> usize {
        17
    }

    fn lowest(
        &self,
        queries: &[f32],
        groups: Option<ExclusionGroups<'_>>,
        count: usize,
    ) -> Result<Lowest, KernelError> {
        let (m, mut lowest) = (self.0.lower().len(), Lowest { bounds: Vec::new(), rows: Vec::new() });
        for (query, row) in queries.chunks(self.0.dimension()).enumerate() {
            let mut products = vec![0.0; m];
            inner_products(row, self.0.rows(), self.0.dimension(), &mut products);
            let bound = |row: usize| match self.0.lower()[row] - 2.0 * products[row] {
                _ if groups.is_some_and(|groups| !groups.is_allowed(query, row)) => f32::INFINITY,
                bound if bound.is_nan() => f32::NEG_INFINITY,
                bound => bound,
            };
            let mut all: Vec<(f32, i64)> = (0..m).map(|row| (bound(row), row as i64)).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            lowest.bounds.extend(all[..count].iter().map(|pair| pair.0));
            lowest.rows.extend(all[..count].iter().map(|pair| pair.1));
        }
        Ok(lowest)
    }
}

#[cfg(feature = "torch")]
fn libtorch(rows: &[f32], d: usize) -> SearchBank {
    plain(rows, d).with_bounds_of(Device::Cpu).unwrap()
}

/// Runs `check` for banks on every device that all machines have.
fn on_all_devices(check: fn(Make)) {
    check(plain);
    check(simulated);
    #[cfg(feature = "torch")]
    check(libtorch);
}

fn brute(queries: &[f32], bank: &[f32], d: usize, k: usize) -> Neighbours {
    let mut found = Neighbours { index: Vec::new(), distance: Vec::new() };
    for query in queries.chunks(d) {
        let mut all: Vec<(f32, u32)> =
            bank.chunks(d).zip(0..).map(|(row, number)| (squared_euclidean(query, row), number)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (squared, row) in all.into_iter().take(k) {
            found.index.push(row);
            found.distance.push(squared.sqrt());
        }
    }
    found
}

fn normals(stream: &mut Rng, count: usize, mean: f32) -> Vec<f32> {
    (0..count).map(|_| stream.normal() as f32 + mean).collect()
}

/// Small whole numbers, so that many distances are equal.
fn digits(stream: &mut Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| stream.below(3) as f32).collect()
}

fn assert_small_sizes(make: Make) {
    let mut stream = Rng::new(1, "nearest");
    for size in 1..=20 {
        for d in [1, 2, 5, 33] {
            let (queries, rows) = (digits(&mut stream, size * d), digits(&mut stream, (21 - size) * d));
            let bank = make(&rows, d);
            for k in [1, 2, 5, 30] {
                let found = bank.nearest(&queries, k).unwrap();
                assert_eq!(found, brute(&queries, &rows, d, k), "size {size}, d {d}, k {k}");
            }
        }
    }
}

#[test]
fn small_sizes_equal_brute_force_with_ties() {
    on_all_devices(assert_small_sizes);
}

#[test]
fn blocks_equal_brute_force_even_far_from_the_origin() {
    let mut stream = Rng::new(2, "nearest");
    for (mean, d) in [(0.0, 40), (100.0, 40), (5.0, 300)] {
        let queries = normals(&mut stream, 70 * d, mean);
        let mut bank = normals(&mut stream, 1100 * d, mean);
        bank.copy_within(0..50 * d, 1000 * d); // duplicates
        bank[200 * d..230 * d].copy_from_slice(&queries[..30 * d]); // distance 0
        for k in [1, 9] {
            let found = plain(&bank, d).nearest(&queries, k).unwrap();
            assert_eq!(found, brute(&queries, &bank, d, k), "mean {mean}, d {d}, k {k}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let mut stream = Rng::new(3, "nearest");
    let (queries, bank) = (normals(&mut stream, 100 * 16, 0.0), normals(&mut stream, 700 * 16, 0.0));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| plain(&bank, 16).nearest(&queries, 3).unwrap())
    };
    assert_eq!(run(1), run(5));
}

fn assert_other_groups(make: Make) {
    let mut stream = Rng::new(4, "nearest");
    let d = 6;
    for (rows, size) in [(normals(&mut stream, 600 * d, 0.0), 50), (digits(&mut stream, 600 * d), 599)] {
        let group: Vec<u32> = (0..600).map(|row| row / size).collect();
        let found = make(&rows, d).nearest_excluding(&rows, &group, &group).unwrap();
        for query in 0..600 {
            let others: Vec<usize> = (0..600).filter(|&row| group[row] != group[query]).collect();
            let kept: Vec<f32> = others.iter().flat_map(|&row| rows[row * d..][..d].to_vec()).collect();
            let expected = brute(&rows[query * d..][..d], &kept, d, 1);
            assert_eq!(found.index[query] as usize, others[expected.index[0] as usize]);
            assert_eq!(found.distance[query], expected.distance[0]);
        }
    }
    let alone = make(&[1.0, 2.0], 1).nearest_excluding(&[1.0], &[7], &[7, 7]).unwrap();
    assert_eq!(alone, Neighbours { index: vec![NO_ROW], distance: vec![f32::INFINITY] });
}

#[test]
fn another_group_is_searched_as_if_its_own_were_absent() {
    on_all_devices(assert_other_groups);
}

#[test]
fn wrong_data_is_refused() {
    assert_eq!(SearchBank::new(Vec::new(), 1).unwrap_err(), KernelError::EmptyBank);
    assert_eq!(plain(&[1.0], 1).nearest(&[f32::NAN], 1), Err(KernelError::NotFinite { row: 0 }));
    assert_eq!(SearchBank::new(vec![1.0, f32::INFINITY], 1).unwrap_err(), KernelError::NotFinite { row: 1 });
    assert!(plain(&[1.0], 1).nearest(&[], 1).unwrap().index.is_empty());
}

/// Searches with codes of `width` and of `count` axes, whether they pay or not.
fn by_codes(queries: &[f32], bank: &[f32], d: usize, k: usize, (width, count): (usize, usize)) -> Neighbours {
    let axes = PrincipalAxes::of(bank, d, count).unwrap();
    by_axes(axes, queries, bank, k, width)
}

fn by_axes(axes: PrincipalAxes, queries: &[f32], bank: &[f32], k: usize, width: usize) -> Neighbours {
    let d = axes.dimension();
    let mut pca = PcaFilter::new(axes, width, bank).with_int8(None);
    let norms = squared_norms(queries, d).unwrap();
    let bank = SearchBank::new(bank.to_vec(), d).unwrap();
    let k = k.min(bank.len());
    let found = bank.search_with(&pca, (queries, &norms), k, |_, _| true);
    for simd in [Int8Simd::Vnni, Int8Simd::Avx2] {
        let by_rows = match Int8Filter::about_mean(simd, bank.rows(), d).with(bank.rows()) {
            Some(int8) => bank.search_with(&int8, (queries, &norms), k, |_, _| true),
            None => bank.search_with(&bank.rows, (queries, &norms), k, |_, _| true),
        };
        assert_eq!(by_rows, found, "int8 rows, {simd:?}");
        pca = pca.with_int8(Some(simd));
        let by_codes = bank.search_with(&pca, (queries, &norms), k, |_, _| true);
        assert_eq!(by_codes, found, "int8 codes, {simd:?}");
    }
    found
}

/// Rows near `rank` directions, in groups, with some noise: what a network's features are like.
fn features(stream: &mut Rng, count: usize, d: usize, rank: usize, noise: f32) -> Vec<f32> {
    let mut shared = Rng::new(9, "features");
    let directions = normals(&mut shared, rank * d, 0.0);
    let groups = normals(&mut shared, 10 * rank, 0.0);
    let mut rows = normals(stream, count * d, 0.0);
    for row in rows.chunks_mut(d) {
        for x in row.iter_mut() {
            *x *= noise;
        }
        let group = stream.below(10) * rank;
        for (axis, direction) in directions.chunks(d).enumerate() {
            let size = groups[group + axis] + 0.5 * stream.normal() as f32;
            row.iter_mut().zip(direction).for_each(|(x, along)| *x += size * along);
        }
    }
    rows
}

/// Length of the rows of [`every_kind`].
const D: usize = 50;

/// Queries and bank rows: noise near and far from the origin, ties on a grid, features without and with noise, with
/// equal columns, with duplicates and many of one row.
fn every_kind(stream: &mut Rng) -> Vec<(Vec<f32>, Vec<f32>)> {
    let kind = |kind| {
        let (mut queries, mut rows) = match kind {
            0 => (normals(stream, 40 * D, 0.0), normals(stream, 700 * D, 0.0)),
            1 => (normals(stream, 40 * D, 80.0), normals(stream, 700 * D, 80.0)),
            2 => (digits(stream, 40 * D), digits(stream, 700 * D)),
            3 => (features(stream, 40, D, 3, 0.0), features(stream, 700, D, 3, 0.0)),
            _ => (features(stream, 40, D, 6, 0.1), features(stream, 700, D, 6, 0.1)),
        };
        if kind == 5 {
            queries.chunks_mut(D).chain(rows.chunks_mut(D)).for_each(|row| row[3..9].fill(7.0));
        }
        if kind >= 6 {
            rows.copy_within(0..300 * D, 400 * D); // duplicates
            queries[..30 * D].copy_from_slice(&rows[200 * D..230 * D]); // distance 0
        }
        if kind == 7 {
            let one = rows[..D].to_vec();
            rows.chunks_mut(D).skip(100).step_by(3).for_each(|row| row.copy_from_slice(&one)); // many of one
            queries[35 * D..36 * D].copy_from_slice(&one);
        }
        (queries, rows)
    };
    (0..8).map(kind).collect()
}

fn assert_every_kind(make: Make) {
    for (kind, (queries, rows)) in every_kind(&mut Rng::new(12, "nearest")).iter().enumerate() {
        let bank = make(rows, D);
        for k in 1..=9 {
            let found = bank.nearest(queries, k).unwrap();
            assert_eq!(found, brute(queries, rows, D, k), "kind {kind}, k {k}");
        }
    }
}

#[test]
fn every_kind_of_rows_equals_brute_force() {
    on_all_devices(assert_every_kind);
}

#[test]
fn codes_equal_brute_force_on_every_kind_of_rows() {
    for (kind, (queries, bank)) in every_kind(&mut Rng::new(5, "nearest")).iter().enumerate() {
        for k in 1..=9 {
            for widths in [(4, 7), (16, 31)] {
                let found = by_codes(queries, bank, D, k, widths);
                assert_eq!(found, brute(queries, bank, D, k), "kind {kind}, k {k}, {widths:?}");
            }
        }
    }
}

/// Fails without the error bound of codes: all distances are of the size of the codes' rounding.
#[test]
fn rows_that_differ_in_their_last_bits_are_distinguished() {
    let mut stream = Rng::new(6, "nearest");
    let d = 64;
    let base = normals(&mut stream, 5 * d, 3.0);
    let near = |count: usize, stream: &mut Rng| -> Vec<f32> {
        let rows: Vec<usize> = (0..count).map(|_| stream.below(5)).collect();
        rows.iter()
            .flat_map(|&row| &base[row * d..][..d])
            .map(|x| x * (1.0 + stream.below(5) as f32 * f32::EPSILON))
            .collect()
    };
    let (queries, bank) = (near(60, &mut stream), near(900, &mut stream));
    for widths in [(8, 15), (32, 47)] {
        assert_eq!(by_codes(&queries, &bank, d, 3, widths), brute(&queries, &bank, d, 3), "{widths:?}");
    }
}

#[test]
fn axes_that_are_hardly_orthonormal_lose_nothing() {
    let mut stream = Rng::new(7, "nearest");
    let d = 40;
    let (queries, bank) = (normals(&mut stream, 50 * d, 0.0), normals(&mut stream, 800 * d, 0.0));
    for (stretch, tilt) in [(1.001, 0.0), (0.999, 0.0), (1.0, 0.0005)] {
        let mut directions = vec![tilt; 7 * d];
        (0..7).for_each(|axis| directions[axis * d + axis] = stretch);
        let axes = PrincipalAxes::measure(vec![0.0; d], directions).unwrap();
        assert_eq!(by_axes(axes, &queries, &bank, 2, 4), brute(&queries, &bank, d, 2), "{stretch} {tilt}");
    }
}

/// Factors down to where squares underflow and up to where they overflow.
const SCALES: [f32; 10] = [1e-42, 1e-38, 1e-30, 1e-22, 1e-15, 1e-5, 1e5, 1e15, 1e17, 3e18];

fn assert_every_scale(make: Make) {
    let mut stream = Rng::new(13, "nearest");
    let d = 48;
    let (queries, rows) = (features(&mut stream, 20, d, 4, 0.1), features(&mut stream, 600, d, 4, 0.1));
    for scale in SCALES {
        let scaled = |rows: &[f32]| -> Vec<f32> { rows.iter().map(|x| x * scale).collect() };
        let (mut queries, mut rows) = (scaled(&queries), scaled(&rows));
        let found = make(&rows, d).nearest(&queries, 4).unwrap();
        assert_eq!(found, brute(&queries, &rows, d, 4), "{scale}");
        rows[77 * d..78 * d].fill(2e37); // products that overflow
        queries[5 * d..6 * d].fill(-3e37);
        let found = make(&rows, d).nearest(&queries, 4).unwrap();
        assert_eq!(found, brute(&queries, &rows, d, 4), "{scale} with overflow");
    }
    let huge = [1e19, 3e38, -3e38, 2e19];
    let found = make(&huge, 1).nearest(&[1.5e19, 3e38], 4).unwrap();
    assert_eq!(found, brute(&[1.5e19, 3e38], &huge, 1, 4));
}

#[test]
fn every_scale_equals_brute_force() {
    on_all_devices(assert_every_scale);
}

#[test]
fn codes_of_every_scale_equal_brute_force() {
    let mut stream = Rng::new(8, "nearest");
    let d = 48;
    let (queries, bank) = (features(&mut stream, 20, d, 4, 0.1), features(&mut stream, 600, d, 4, 0.1));
    for scale in SCALES {
        let scaled = |rows: &[f32]| -> Vec<f32> { rows.iter().map(|x| x * scale).collect() };
        let (queries, bank) = (scaled(&queries), scaled(&bank));
        if let Some(axes) = PrincipalAxes::of(&bank, d, 15) {
            assert_eq!(by_axes(axes, &queries, &bank, 4, 8), brute(&queries, &bank, d, 4), "{scale}");
        }
    }
    let mut outlier = bank;
    outlier[77 * d..78 * d].fill(2e37); // one row whose code overflows
    let axes = PrincipalAxes::of(&outlier[100 * d..], d, 15).unwrap();
    assert_eq!(by_axes(axes, &queries, &outlier, 4, 8), brute(&queries, &outlier, d, 4));
}

#[test]
fn a_bank_makes_codes_once_they_pay_and_never_for_noise() {
    let mut stream = Rng::new(9, "nearest");
    let d = 128;
    for (is_noise, rank) in [(false, 5), (true, 0)] {
        let rows = |count, stream: &mut Rng| features(stream, count, d, rank, 0.2);
        let (queries, bank) = (rows(400, &mut stream), rows(1000, &mut stream));
        let group: Vec<u32> = (0..1000).map(|row| row / 100).collect();
        let bank = SearchBank::new(bank, d).unwrap();
        assert!(bank.pca.get().is_none());
        let first = bank.nearest(&queries[..20 * d], 5).unwrap();
        assert!(bank.pca.get().is_none(), "20 queries do not pay");
        for k in [5, 1, 9] {
            let found = bank.nearest(&queries, k).unwrap();
            assert_eq!(found, brute(&queries, bank.rows(), d, k), "{is_noise} {k}");
        }
        assert_eq!(bank.pca.get().unwrap().is_none(), is_noise);
        assert_eq!(first, bank.nearest(&queries[..20 * d], 5).unwrap());
        let plain_bank = plain(bank.rows(), d);
        let expected = plain_bank.nearest_excluding(&queries[..400 * d], &group[..400], &group).unwrap();
        assert_eq!(bank.nearest_excluding(&queries, &group[..400], &group).unwrap(), expected);
    }
}

#[test]
fn threads_change_no_bit_with_codes() {
    let mut stream = Rng::new(10, "nearest");
    let d = 96;
    let (queries, bank) = (features(&mut stream, 300, d, 5, 0.2), features(&mut stream, 900, d, 5, 0.2));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| by_codes(&queries, &bank, d, 9, (16, 31)))
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(4));
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let device = Device::Cuda(99);
    match SearchBank::on(device, vec![1.0], 1).unwrap_err() {
        KernelError::NotBuilt { .. } => assert!(!Backend::Torch.is_built()),
        KernelError::NoDevice { device: found, .. } => assert_eq!(found, device),
        other => panic!("{other}"),
    }
    assert_eq!(SearchBank::on(Device::Cpu, vec![1.0], 1).unwrap().len(), 1);
}

#[test]
fn threads_that_search_at_once_take_turns() {
    let mut stream = Rng::new(15, "nearest");
    let d = 40;
    let (queries, rows) = (normals(&mut stream, 30 * d, 0.0), normals(&mut stream, 500 * d, 0.0));
    let expected = brute(&queries, &rows, d, 3);
    #[cfg(not(feature = "torch"))]
    let bank = simulated(&rows, d);
    #[cfg(feature = "torch")]
    let bank = libtorch(&rows, d);
    (0..12).into_par_iter().for_each(|_| assert_eq!(bank.nearest(&queries, 3).unwrap(), expected));
}

#[cfg(feature = "torch")]
#[test]
#[ignore = "needs a CUDA GPU and a build against its PyTorch: LIBTORCH_USE_PYTORCH=1"]
fn a_gpu_finds_what_brute_force_finds() {
    let on_gpu: Make = |rows, d| plain(rows, d).with_bounds_of(Device::Cuda(0)).unwrap();
    for check in [assert_small_sizes, assert_every_kind, assert_every_scale, assert_other_groups] {
        check(on_gpu);
    }
    let mut stream = Rng::new(16, "nearest");
    let d = 1024;
    let (queries, rows) = (normals(&mut stream, 300 * d, 1.0), normals(&mut stream, 20_000 * d, 1.0));
    let expected = plain(&rows, d).nearest(&queries, 9).unwrap();
    assert_eq!(on_gpu(&rows, d).nearest(&queries, 9).unwrap(), expected);
}
