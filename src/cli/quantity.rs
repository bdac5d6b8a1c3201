//! Durations and sizes as people write and read them: `90s`, `2h`, `50GB`.

/// Seconds in each unit, the largest last.
const TIMES: [(&str, f64); 4] = [("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];
/// Bytes in each unit: decimal ones as disks are sold, binary ones as memory is.
const SIZES: [(&str, f64); 9] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

/// Reads a duration such as `90s`, `30min`, `2h`, `1.5d`; in seconds.
pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    parse(text, &TIMES).ok_or_else(|| format!("`{text}` is no duration such as 90s, 30min, 2h or 1d"))
}

/// Reads a size such as `500MB`, `50GB`, `16GiB`; in bytes.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse(text, &SIZES).ok_or_else(|| format!("`{text}` is no size such as 500MB or 50GB"))?;
    Ok(bytes as u64)
}

fn parse(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let (_, scale) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    Some(number * scale)
}

/// `0.3 s`, `12 s`, `4 min 10 s`, `2 h 5 min`.
pub(super) fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// `512 B`, `3.4 MB`, `12 GB`.
pub(super) fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    let (unit, scale) = SIZES[..5].iter().rev().find(|(_, scale)| value >= *scale).unwrap_or(&SIZES[0]);
    let scaled = value / scale;
    if *scale > 1.0 && scaled < 10.0 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        assert_eq!(parse_seconds("90s"), Ok(90.0));
        assert_eq!(parse_seconds("1.5h"), Ok(5400.0));
        assert_eq!(parse_seconds("30 min"), Ok(1800.0));
        assert_eq!(parse_bytes("50GB"), Ok(50_000_000_000));
        assert_eq!(parse_bytes("2gib"), Ok(2_147_483_648));
        assert!(parse_seconds("2").is_err() && parse_seconds("h").is_err() && parse_bytes("2h").is_err());
        assert!(parse_bytes("-1GB").is_err() && parse_bytes("1.2.3GB").is_err());
    }

    #[test]
    fn numbers_are_shown_in_the_unit_that_fits() {
        let shown = [0.04, 9.96, 59.4, 250.0, 7500.0, 90_000.0].map(seconds);
        assert_eq!(shown, ["0.0 s", "10.0 s", "59 s", "4 min 10 s", "2 h 5 min", "1 d 1 h"]);
        let shown = [0, 999, 3_400_000, 12_000_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "3.4 MB", "12 GB"]);
    }
}
