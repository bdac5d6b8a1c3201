//! Times the pixel metrics on raw files, which are read image by image. Called by `benches/peers/metrics.py`.
//!
//! - `metrics_speed FOLDER COUNT HEIGHT WIDTH [--bootstrap RESAMPLES] [--threads N]` reads `FOLDER/maps.f32`
//!   (`[count, height, width]`, little-endian) and `FOLDER/masks.u8`. It prints one line of JSON: wall and CPU seconds
//!   (with the part for reading listed separately), peak memory and the metrics; with `--bootstrap`, also the intervals,
//!   and the bound and the actual value of the error that the binning causes on the whole set.
//! - `metrics_speed FOLDER COUNT HEIGHT WIDTH --make smooth|tied` generates such files: blurred noise at an eighth of the
//!   size, upsampled as in `evaluate`. One image in nine has one to three elliptic defects. `tied` rounds the scores to
//!   64ths.
//! - `metrics_speed FOLDER COUNT HEIGHT WIDTH --maps SIGMA` upsamples the maps by 8 and blurs them, writes `up.f32` and
//!   `blur.f32`, and prints the seconds of each.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program of the benches, not of the product")]

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

use patchflow::kernels::map::{default_sigma, gaussian_blur, upsample};
use patchflow::kernels::metrics::{
    DEFAULT_BINS, PixelEstimate, PixelMetrics, PixelScores, PixelStatistics, ScoreBins, pixel_intervals,
};
use patchflow::kernels::random::Rng;
use serde_json::{Value, json};

/// Pixels per patch, along a side.
const PATCH: usize = 8;

fn main() {
    // Cargo adds `--bench` when it runs a bench itself.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [folder, count, height, width, options @ ..] = arguments.as_slice() else {
        println!("run it by benches/peers/metrics.py");
        return;
    };
    let [count, height, width] = [count, height, width].map(|number| number.parse().unwrap());
    let set = Set { folder: Path::new(folder), count, height, width };
    let option = |name: &str| {
        let position = options.iter().position(|&option| option == name)?;
        options.get(position + 1).copied()
    };
    if let Some(threads) = option("--threads") {
        let threads = threads.parse().unwrap();
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    }
    match (option("--make"), option("--maps")) {
        (Some(kind), _) => set.make(kind == "tied"),
        (_, Some(sigma)) => set.time_maps(sigma.parse().unwrap()),
        _ => set.measure(option("--bootstrap").map_or(0, |resamples| resamples.parse().unwrap())),
    }
}

/// The files with the maps and masks of a test set.
struct Set<'a> {
    folder: &'a Path,
    count: usize,
    height: usize,
    width: usize,
}

/// Reads the images one by one.
struct Images {
    maps: BufReader<File>,
    masks: BufReader<File>,
    bytes: Vec<u8>,
    map: Vec<f32>,
    mask: Vec<u8>,
    reading: f64,
}

impl Images {
    fn next(&mut self) {
        let started = Instant::now();
        self.maps.read_exact(&mut self.bytes).unwrap();
        self.masks.read_exact(&mut self.mask).unwrap();
        let values = self.bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        self.map.iter_mut().zip(values).for_each(|(pixel, value)| *pixel = value);
        self.reading += started.elapsed().as_secs_f64();
    }
}

impl Set<'_> {
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    fn images(&self) -> Images {
        let open = |name: &str| BufReader::new(File::open(self.folder.join(name)).unwrap());
        Images {
            maps: open("maps.f32"),
            masks: open("masks.u8"),
            bytes: vec![0; 4 * self.pixels()],
            map: vec![0.0; self.pixels()],
            mask: vec![0; self.pixels()],
            reading: 0.0,
        }
    }

    fn create(&self, name: &str) -> BufWriter<File> {
        BufWriter::new(File::create(self.folder.join(name)).unwrap())
    }

    fn measure(&self, resamples: usize) {
        let started = Instant::now();
        let (mut scores, mut images) = (PixelScores::new(), self.images());
        for _ in 0..self.count {
            images.next();
            scores.add(&images.map, &images.mask, self.height, self.width).unwrap();
        }
        let bins = (resamples > 0).then(|| scores.bins(DEFAULT_BINS).unwrap());
        let found = scores.finish(0.3).unwrap();
        let mut report = json!({
            "seconds": started.elapsed().as_secs_f64(),
            "reading_seconds": images.reading,
            "cpu_seconds": status().1,
            "auroc": found.auroc,
            "average_precision": found.average_precision,
            "f1_max": found.f1_max,
            "f1_max_threshold": found.f1_max_threshold,
            "aupro": found.aupro,
            "defective_pixels": found.positives,
            "pixels": found.positives + found.negatives,
        });
        if let Some(bins) = bins {
            self.bootstrap(&bins, resamples, &found, &mut report);
        }
        report["peak_gib"] = json!(status().0);
        println!("{report}");
    }

    /// Adds the intervals, and the bound and the actual value of the error of the binning on the whole set.
    fn bootstrap(&self, bins: &ScoreBins, resamples: usize, exact: &PixelMetrics, report: &mut Value) {
        let (started, mut images) = (Instant::now(), self.images());
        let counted = (0..self.count).map(|_| {
            images.next();
            bins.count(&images.map, &images.mask, self.height, self.width).unwrap()
        });
        let statistics = PixelStatistics::new(bins, counted.collect(), 0.3);
        report["binning_seconds"] = json!(started.elapsed().as_secs_f64());
        let PixelEstimate { auroc, average_precision, aupro, errors } = statistics.estimate().unwrap();
        let off = [auroc - exact.auroc, average_precision - exact.average_precision, aupro - exact.aupro];
        report["measured"] = json!(off.map(f64::abs));
        report["stated"] = json!([errors.auroc, errors.average_precision, errors.aupro]);
        let found = pixel_intervals(&statistics, resamples, &mut Rng::new(1, "bench")).unwrap();
        let intervals = [found.auroc, found.average_precision, found.aupro];
        report["intervals"] = json!(intervals.map(|interval| [interval.low, interval.high]));
        report["bootstrap_seconds"] = json!(started.elapsed().as_secs_f64());
    }

    fn make(&self, is_tied: bool) {
        let (mut maps, mut masks) = (self.create("maps.f32"), self.create("masks.u8"));
        let mut rng = Rng::new(1, "benchmark maps");
        for image in 0..self.count {
            let mask = if image % 9 == 0 && image / 9 < 110 {
                self.make_mask(&mut rng)
            } else {
                vec![0; self.pixels()]
            };
            masks.write_all(&mask).unwrap();
            for score in self.make_map(&mut rng, &mask) {
                let score = if is_tied { (score * 64.0).round() / 64.0 } else { score };
                maps.write_all(&score.to_le_bytes()).unwrap();
            }
        }
    }

    /// Returns a mask with one to three ellipses.
    fn make_mask(&self, rng: &mut Rng) -> Vec<u8> {
        let mut mask = vec![0; self.pixels()];
        for _ in 0..=rng.below(3) {
            let (y, x) = (rng.below(self.height) as f64, rng.below(self.width) as f64);
            let (tall, wide) = (rng.between(3.0, 40.0), rng.between(3.0, 30.0));
            for (pixel, value) in mask.iter_mut().enumerate() {
                let (down, across) = ((pixel / self.width) as f64 - y, (pixel % self.width) as f64 - x);
                *value |= u8::from((down / tall).powi(2) + (across / wide).powi(2) <= 1.0);
            }
        }
        mask
    }

    /// Returns a map at an eighth of the size: scores around 2, higher by about 1 at defects.
    fn make_map(&self, rng: &mut Rng, mask: &[u8]) -> Vec<f32> {
        let (h, w) = (self.height / PATCH, self.width / PATCH);
        let (level, lift) = (rng.between(1.5, 2.5), rng.between(0.0, 1.6));
        let patch = |patch: usize| {
            let pixel = (patch / w * PATCH + PATCH / 2) * self.width + patch % w * PATCH + PATCH / 2;
            (level + 0.4 * rng.normal().abs() + lift * f64::from(mask[pixel])) as f32
        };
        let patches: Vec<f32> = (0..h * w).map(patch).collect();
        let full = upsample(&patches, h, w, self.height, self.width);
        gaussian_blur(&full, self.height, self.width, default_sigma(self.height, self.width))
    }

    fn time_maps(&self, sigma: f64) {
        let (mut up, mut blur) = (self.create("up.f32"), self.create("blur.f32"));
        let (h, w) = (self.height / PATCH, self.width / PATCH);
        let (mut seconds, mut images) = ([0.0; 2], self.images());
        for _ in 0..self.count {
            images.next();
            let patches = &images.map[..h * w];
            let started = Instant::now();
            let full = upsample(patches, h, w, self.height, self.width);
            seconds[0] += started.elapsed().as_secs_f64();
            let started = Instant::now();
            let blurred = gaussian_blur(&images.map, self.height, self.width, sigma);
            seconds[1] += started.elapsed().as_secs_f64();
            for (file, values) in [(&mut up, full), (&mut blur, blurred)] {
                file.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
                    .unwrap();
            }
        }
        println!("{}", json!({ "up_seconds": seconds[0], "blur_seconds": seconds[1] }));
    }
}

/// Returns the peak resident memory in GiB and the CPU seconds of this process; 0 if the system does not report them.
fn status() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: f64 = peak.map_or(0.0, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // User and system time, fields 14 and 15 of proc(5), in hundredths of a second.
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    (kilobytes / (1 << 20) as f64, ticks.sum::<f64>() / 100.0)
}
