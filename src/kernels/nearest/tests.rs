//! The search equals brute force to the bit.
#![expect(clippy::float_cmp, reason = "these results are promised to the bit")]

use super::axes::{Axes, mean};
use super::*;
use crate::kernels::backbone::Backend;
use crate::kernels::distance::squared_euclidean;
use crate::kernels::random::Rng;

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

#[test]
fn small_sizes_equal_brute_force_with_ties() {
    let mut stream = Rng::new(1, "nearest");
    for size in 1..=20 {
        for d in [1, 2, 5, 33] {
            let (queries, bank) = (digits(&mut stream, size * d), digits(&mut stream, (21 - size) * d));
            for k in [1, 2, 5, 30] {
                let found = nearest(&queries, &bank, d, k).unwrap();
                assert_eq!(found, brute(&queries, &bank, d, k), "size {size}, d {d}, k {k}");
            }
        }
    }
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
            let found = nearest(&queries, &bank, d, k).unwrap();
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
        pool.install(|| nearest(&queries, &bank, 16, 3).unwrap())
    };
    assert_eq!(run(1), run(5));
}

#[test]
fn another_group_is_searched_as_if_its_own_were_absent() {
    let mut stream = Rng::new(4, "nearest");
    let (d, rows) = (6, normals(&mut stream, 600 * 6, 0.0));
    let group: Vec<u32> = (0..600).map(|row| row / 50).collect();
    let found = nearest_excluding(&rows, &group, &rows, &group, d).unwrap();
    for query in 0..600 {
        let others: Vec<usize> = (0..600).filter(|&row| group[row] != group[query]).collect();
        let kept: Vec<f32> = others.iter().flat_map(|&row| rows[row * d..][..d].to_vec()).collect();
        let expected = brute(&rows[query * d..][..d], &kept, d, 1);
        assert_eq!(found.index[query] as usize, others[expected.index[0] as usize]);
        assert_eq!(found.distance[query], expected.distance[0]);
    }
}

#[test]
fn no_other_group_gives_infinity() {
    let found = nearest_excluding(&[1.0], &[7], &[1.0, 2.0], &[7, 7], 1).unwrap();
    assert_eq!(found, Neighbours { index: vec![NO_ROW], distance: vec![f32::INFINITY] });
}

#[test]
fn enormous_numbers_are_still_ordered() {
    let bank = [1e19, 3e38, -3e38, 2e19];
    let found = nearest(&[1.5e19, 3e38], &bank, 1, 4).unwrap();
    assert_eq!(found, brute(&[1.5e19, 3e38], &bank, 1, 4));
}

#[test]
fn wrong_data_is_refused() {
    assert_eq!(nearest(&[1.0], &[], 1, 1), Err(KernelError::EmptyBank));
    assert_eq!(nearest(&[f32::NAN], &[1.0], 1, 1), Err(KernelError::NotFinite { row: 0 }));
    assert_eq!(nearest(&[1.0], &[1.0, f32::INFINITY], 1, 1), Err(KernelError::NotFinite { row: 1 }));
    assert!(nearest(&[], &[1.0], 1, 1).unwrap().index.is_empty());
}

/// Searches with codes of `width` and of `count` axes, whether they pay or not.
fn by_codes(queries: &[f32], bank: &[f32], d: usize, k: usize, (width, count): (usize, usize)) -> Neighbours {
    let axes = Axes::of(bank, d, count).unwrap();
    by_axes(axes, queries, bank, k, width)
}

fn by_axes(axes: Axes, queries: &[f32], bank: &[f32], k: usize, width: usize) -> Neighbours {
    let d = axes.dimension();
    let screen = Screen::new(axes, width, bank).with_bytes(false);
    let bytes = ByteBank::of(bank, d, mean(bank, d), 0.0);
    let norms = squared_norms(queries, d).unwrap();
    let bank = Bank::new(bank.to_vec(), d).unwrap();
    let search = |screen: Option<&Screen>, bytes: Option<&ByteBank>| {
        bank.search_by(screen, bytes, queries, &norms, k.min(bank.len()), |_, _| true)
    };
    let found = search(Some(&screen), None);
    assert_eq!(search(None, bytes.as_ref()), found, "copies of the rows");
    assert_eq!(search(Some(&screen.with_bytes(true)), None), found, "copies of the codes");
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

#[test]
fn codes_equal_brute_force_on_every_kind_of_rows() {
    let mut stream = Rng::new(5, "nearest");
    let d = 50;
    for kind in 0..7 {
        let (mut queries, mut bank) = match kind {
            0 => (normals(&mut stream, 40 * d, 0.0), normals(&mut stream, 700 * d, 0.0)),
            1 => (normals(&mut stream, 40 * d, 80.0), normals(&mut stream, 700 * d, 80.0)),
            2 => (digits(&mut stream, 40 * d), digits(&mut stream, 700 * d)),
            3 => (features(&mut stream, 40, d, 3, 0.0), features(&mut stream, 700, d, 3, 0.0)),
            _ => (features(&mut stream, 40, d, 6, 0.1), features(&mut stream, 700, d, 6, 0.1)),
        };
        if kind == 5 {
            queries.chunks_mut(d).chain(bank.chunks_mut(d)).for_each(|row| row[3..9].fill(7.0));
        }
        if kind == 6 {
            bank.copy_within(0..300 * d, 400 * d); // duplicates
            queries[..30 * d].copy_from_slice(&bank[200 * d..230 * d]); // distance 0
        }
        for k in 1..=9 {
            for widths in [(4, 7), (16, 31)] {
                let found = by_codes(&queries, &bank, d, k, widths);
                assert_eq!(found, brute(&queries, &bank, d, k), "kind {kind}, k {k}, {widths:?}");
            }
        }
    }
}

/// Fails without the slack: all distances are of the size of the codes' rounding.
#[test]
fn rows_that_differ_in_their_last_bits_are_told_apart() {
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
        let axes = Axes::measure(vec![0.0; d], directions).unwrap();
        assert_eq!(by_axes(axes, &queries, &bank, 2, 4), brute(&queries, &bank, d, 2), "{stretch} {tilt}");
    }
}

#[test]
fn every_scale_equals_brute_force() {
    let mut stream = Rng::new(8, "nearest");
    let d = 48;
    let (queries, bank) = (features(&mut stream, 20, d, 4, 0.1), features(&mut stream, 600, d, 4, 0.1));
    for scale in [1e-42, 1e-38, 1e-30, 1e-22, 1e-15, 1e-5, 1e5, 1e15, 1e17, 3e18] {
        let scaled = |rows: &[f32]| -> Vec<f32> { rows.iter().map(|x| x * scale).collect() };
        let (queries, bank) = (scaled(&queries), scaled(&bank));
        let expected = brute(&queries, &bank, d, 4);
        assert_eq!(nearest(&queries, &bank, d, 4).unwrap(), expected, "{scale}");
        if let Some(axes) = Axes::of(&bank, d, 15) {
            assert_eq!(by_axes(axes, &queries, &bank, 4, 8), expected, "{scale} by codes");
        }
    }
    let mut outlier = bank;
    outlier[77 * d..78 * d].fill(2e37); // one row whose code overflows
    let axes = Axes::of(&outlier[100 * d..], d, 15).unwrap();
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
        let bank = Bank::new(bank, d).unwrap();
        assert!(bank.screen.get().is_none());
        let first = bank.nearest(&queries[..20 * d], 5).unwrap();
        assert!(bank.screen.get().is_none(), "20 queries do not pay");
        for k in [5, 1, 9] {
            let found = bank.nearest(&queries, k).unwrap();
            assert_eq!(found, brute(&queries, bank.rows(), d, k), "{is_noise} {k}");
        }
        assert_eq!(bank.screen.get().unwrap().is_none(), is_noise);
        assert_eq!(first, bank.nearest(&queries[..20 * d], 5).unwrap());
        let plain = nearest_excluding(&queries[..400 * d], &group[..400], bank.rows(), &group, d).unwrap();
        assert_eq!(bank.nearest_excluding(&queries, &group[..400], &group).unwrap(), plain);
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
    match Bank::on(device, vec![1.0], 1).unwrap_err() {
        KernelError::NotBuilt { .. } => assert!(!Backend::Torch.is_built()),
        KernelError::NoDevice { device: found, .. } => assert_eq!(found, device),
        other => panic!("{other}"),
    }
    assert_eq!(Bank::on(Device::Cpu, vec![1.0], 1).unwrap().len(), 1);
}

#[cfg(feature = "torch")]
mod on_libtorch {
    use super::*;

    /// A bank whose bounds come from libtorch, on its own processor device or on a GPU.
    fn bank(device: Device, rows: &[f32], d: usize) -> Bank {
        Bank::new(rows.to_vec(), d).unwrap().through_libtorch(device).unwrap()
    }

    fn assert_small_sizes(device: Device) {
        let mut stream = Rng::new(11, "nearest");
        for size in 1..=20 {
            for d in [1, 2, 5, 33] {
                let queries = digits(&mut stream, size * d);
                let rows = digits(&mut stream, (21 - size) * d);
                let bank = bank(device, &rows, d);
                for k in [1, 2, 5, 30] {
                    let found = bank.nearest(&queries, k).unwrap();
                    assert_eq!(found, brute(&queries, &rows, d, k), "size {size}, d {d}, k {k}");
                }
            }
        }
    }

    /// Noise near and far from the origin, ties on a grid, features with and without noise, duplicates.
    fn assert_every_kind(device: Device) {
        let mut stream = Rng::new(12, "nearest");
        let d = 50;
        for kind in 0..6 {
            let (mut queries, mut rows) = match kind {
                0 => (normals(&mut stream, 40 * d, 0.0), normals(&mut stream, 700 * d, 0.0)),
                1 => (normals(&mut stream, 40 * d, 80.0), normals(&mut stream, 700 * d, 80.0)),
                2 => (digits(&mut stream, 40 * d), digits(&mut stream, 700 * d)),
                3 => (features(&mut stream, 40, d, 3, 0.0), features(&mut stream, 700, d, 3, 0.0)),
                _ => (features(&mut stream, 40, d, 6, 0.1), features(&mut stream, 700, d, 6, 0.1)),
            };
            if kind == 5 {
                rows.copy_within(0..300 * d, 400 * d); // duplicates
                queries[..30 * d].copy_from_slice(&rows[200 * d..230 * d]); // distance 0
                let one = rows[..d].to_vec();
                rows.chunks_mut(d).skip(100).step_by(3).for_each(|row| row.copy_from_slice(&one)); // many of one
                queries[35 * d..36 * d].copy_from_slice(&one);
            }
            let bank = bank(device, &rows, d);
            for k in 1..=9 {
                let found = bank.nearest(&queries, k).unwrap();
                assert_eq!(found, brute(&queries, &rows, d, k), "kind {kind}, k {k}");
            }
        }
    }

    fn assert_every_scale(device: Device) {
        let mut stream = Rng::new(13, "nearest");
        let d = 48;
        let (queries, rows) = (features(&mut stream, 20, d, 4, 0.1), features(&mut stream, 600, d, 4, 0.1));
        for scale in [1e-42, 1e-38, 1e-30, 1e-22, 1e-15, 1e-5, 1e5, 1e15, 1e17, 3e18] {
            let scaled = |rows: &[f32]| -> Vec<f32> { rows.iter().map(|x| x * scale).collect() };
            let (mut queries, mut rows) = (scaled(&queries), scaled(&rows));
            let found = bank(device, &rows, d).nearest(&queries, 4).unwrap();
            assert_eq!(found, brute(&queries, &rows, d, 4), "{scale}");
            rows[77 * d..78 * d].fill(2e37); // products that overflow
            queries[5 * d..6 * d].fill(-3e37);
            let found = bank(device, &rows, d).nearest(&queries, 4).unwrap();
            assert_eq!(found, brute(&queries, &rows, d, 4), "{scale} with overflow");
        }
        let huge = [1e19, 3e38, -3e38, 2e19];
        let found = bank(device, &huge, 1).nearest(&[1.5e19, 3e38], 4).unwrap();
        assert_eq!(found, brute(&[1.5e19, 3e38], &huge, 1, 4));
    }

    fn assert_other_groups(device: Device) {
        let mut stream = Rng::new(14, "nearest");
        let d = 6;
        for (rows, most) in [(normals(&mut stream, 600 * d, 0.0), 50), (digits(&mut stream, 600 * d), 599)] {
            let group: Vec<u32> = (0..600).map(|row| row / most).collect();
            let expected = nearest_excluding(&rows, &group, &rows, &group, d).unwrap();
            let bank = bank(device, &rows, d);
            assert_eq!(bank.nearest_excluding(&rows, &group, &group).unwrap(), expected);
        }
        let alone = bank(device, &[1.0, 2.0], 1).nearest_excluding(&[1.0], &[7], &[7, 7]).unwrap();
        assert_eq!(alone, Neighbours { index: vec![NO_ROW], distance: vec![f32::INFINITY] });
    }

    #[test]
    fn small_sizes_equal_brute_force_with_ties() {
        assert_small_sizes(Device::Cpu);
    }

    #[test]
    fn every_kind_of_rows_equals_brute_force() {
        assert_every_kind(Device::Cpu);
    }

    #[test]
    fn every_scale_equals_brute_force() {
        assert_every_scale(Device::Cpu);
    }

    #[test]
    fn another_group_is_searched_as_if_its_own_were_absent() {
        assert_other_groups(Device::Cpu);
    }

    #[test]
    fn threads_that_ask_at_once_take_turns() {
        let mut stream = Rng::new(15, "nearest");
        let d = 40;
        let (queries, rows) = (normals(&mut stream, 30 * d, 0.0), normals(&mut stream, 500 * d, 0.0));
        let bank = bank(Device::Cpu, &rows, d);
        let expected = brute(&queries, &rows, d, 3);
        (0..12).into_par_iter().for_each(|_| assert_eq!(bank.nearest(&queries, 3).unwrap(), expected));
    }

    #[test]
    #[ignore = "needs a CUDA GPU and a build against its PyTorch: LIBTORCH_USE_PYTORCH=1"]
    fn a_gpu_finds_what_brute_force_finds() {
        let device = Device::Cuda(0);
        assert_small_sizes(device);
        assert_every_kind(device);
        assert_every_scale(device);
        assert_other_groups(device);
        let mut stream = Rng::new(16, "nearest");
        let d = 1024;
        let (queries, rows) = (normals(&mut stream, 300 * d, 1.0), normals(&mut stream, 20_000 * d, 1.0));
        let expected = nearest(&queries, &rows, d, 9).unwrap();
        assert_eq!(bank(device, &rows, d).nearest(&queries, 9).unwrap(), expected);
    }
}
