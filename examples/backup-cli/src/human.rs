//! Sizes, times and names as people read them on a terminal.

use std::time::Duration;

use backup_core::Timestamp;

/// Bytes with a binary unit and three digits: `1.23 GiB`.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match value {
        _ if unit == "B" => format!("{bytes} B"),
        value if value < 10.0 => format!("{value:.2} {unit}"),
        value if value < 100.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// A duration to the second, or to the hundredth below ten seconds: `1h02m03s`, `1.25s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.2}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m{:02}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// Seconds as [`duration`] says them.
pub fn seconds(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// A time in the zone of this machine, to the second.
pub fn time(time: Timestamp) -> String {
    match time.to_jiff() {
        Some(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => time.to_string(),
    }
}

/// A name without what would move a terminal's cursor, change its colours or show letters in another order.
pub fn name(name: &str) -> String {
    if name.chars().any(drives) {
        name.chars().flat_map(|c| if drives(c) { c.escape_default().collect() } else { vec![c] }).collect()
    } else {
        name.to_owned()
    }
}

/// Control characters, ends of lines, and marks, embeddings, overrides and isolates of the direction of writing (UAX #9).
fn drives(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

/// `1 entry`, `2 entries`.
pub fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "0.98 KiB");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn names_cannot_drive_a_terminal() {
        assert_eq!(name("plain ä"), "plain ä");
        assert_eq!(name("\x1b[31mred\n"), "\\u{1b}[31mred\\n");
        assert_eq!(name("evil\u{202e}txt.exe"), "evil\\u{202e}txt.exe");
    }
}
