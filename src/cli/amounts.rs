//! Sizes and times as text, for reading and for display.

use std::time::Duration;

/// Units of size with their bytes. Sizes are shown in the first four.
const UNITS: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Formats bytes as `1.23 GB`, in powers of 1000 like `df -H`.
pub(super) fn bytes(bytes: u64) -> String {
    for (unit, size) in &UNITS[..4] {
        if bytes >= *size {
            return format!("{:.2} {unit}", bytes as f64 / *size as f64);
        }
    }
    format!("{bytes} B")
}

/// Formats seconds as `0.35 s`, `12 min` or `3.1 h`.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 3600.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// Formats a range of seconds as `6.00-24 s` or `40 s-3 min`.
pub(super) fn seconds_range(least: f64, most: f64) -> String {
    let (least, most) = (seconds(least), seconds(most));
    match (least.split_once(' '), most.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}-{most}"),
        _ => format!("{least}-{most}"),
    }
}

/// Parses a size: `50GB`, `1.5 GiB`, `800mb`, `1000`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("`{text}` is not a size; write `50GB` or `800MiB`");
    let digits = text.trim().trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = &text.trim()[digits.len()..];
    let number: f64 = digits.trim().parse().map_err(|_| refuse())?;
    let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let short = UNITS[..4].iter().find(|(name, _)| name[..1].eq_ignore_ascii_case(unit));
    let size = if unit.is_empty() { 1 } else { known.or(short).ok_or_else(refuse)?.1 };
    let bytes = number * size as f64;
    if number.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err(refuse())
    }
}

/// Parses a duration: `90s`, `1h`, `2h 30m`, `7d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is not a duration; write `90s`, `1h` or `7d`");
    let span: jiff::Span = text.trim().parse().map_err(|_| refuse())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(days).map_err(|_| refuse())?;
    Duration::try_from(duration).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_usual_spelling() {
        let read = [
            ("50GB", 50_000_000_000),
            ("1.5 GiB", 1_610_612_736),
            ("800mb", 800_000_000),
            ("1000", 1000),
            ("3k", 3000),
            ("0B", 0),
        ];
        for (text, bytes) in read {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "5 parsecs", "-1GB", "1e30TB", "NaN", "inf"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_with_days_of_24_hours() {
        let read = [("0s", 0), ("90s", 90), ("1h", 3600), ("2h 30m", 9000), ("7d", 7 * 86_400)];
        for (text, seconds) in read {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "1", "-1h", "1 month", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_with_three_digits_or_so() {
        let shown = [0, 999, 1000, 1_234_567, 50_000_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.00 kB", "1.23 MB", "50.00 GB"]);
        assert_eq!([0.346, 35.4, 600.0, 11_000.0].map(seconds), ["0.35 s", "35 s", "10 min", "3.1 h"]);
        assert_eq!(
            (seconds_range(6.0, 24.0), seconds_range(60.0, 240.0)),
            ("6.00-24 s".into(), "60 s-4 min".into())
        );
    }
}
