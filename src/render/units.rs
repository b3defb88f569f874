//! Numbers as people read them: three digits and a prefix, no spaces.

/// A count: exact below ten thousand, then in thousands, millions and so on.
pub fn count(number: u64) -> String {
    if number < 10_000 {
        return number.to_string();
    }
    let mut value = number as f64;
    for prefix in ["k", "M", "G", "T", "P"] {
        value /= 1000.0;
        // 999.9 has more than three digits once it is rounded.
        if value < 999.5 {
            return digits(value) + prefix;
        }
    }
    digits(value / 1000.0) + "E"
}

/// A number of octets.
pub fn bytes(octets: u64) -> String {
    count(octets) + "B"
}

/// A size of memory, in powers of 1024.
pub fn memory(octets: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
    let (shift, unit) =
        units.into_iter().find(|(shift, _)| octets >> shift > 0).unwrap_or((0, "B"));
    let size = 1_u64 << shift;
    if octets.is_multiple_of(size) {
        return format!("{}{unit}", octets >> shift);
    }
    format!("{:.1}{unit}", octets as f64 / size as f64)
}

/// A time, in its two largest units.
pub fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d{:02}h", hours % 24),
        () if hours > 0 => format!("{hours}h{:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// A time that is mostly short.
pub fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 1e-3 => format!("{:.0}us", seconds * 1e6),
        _ if seconds < 1.0 => format!("{:.1}ms", seconds * 1e3),
        _ => format!("{seconds:.1}s"),
    }
}

/// A mean or share of which nobody needs all digits.
pub fn mean(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.1}")).unwrap_or_default()
}

/// A share in percent; what is not nothing does not look like it.
pub fn percent(value: f64) -> String {
    if value > 0.0 && value < 0.1 { "<0.1%".to_owned() } else { format!("{value:.1}%") }
}

/// Three digits, with a point where it belongs.
fn digits(value: f64) -> String {
    let places = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        for (number, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (12_345, "12.3k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (1_234_567, "1.23M"),
            (9_994_999, "9.99M"),
            (9_995_000, "10.0M"),
            (1_000_000_000, "1.00G"),
            (2_500_000_000_000, "2.50T"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), text, "{number}");
        }
        assert_eq!(bytes(64_000), "64.0kB");
    }

    #[test]
    fn memory_is_exact_where_it_can_be() {
        for (octets, text) in [
            (0, "0B"),
            (4096, "4KiB"),
            (512 << 20, "512MiB"),
            (3 << 30, "3GiB"),
            ((1 << 30) + (1 << 29), "1.5GiB"),
        ] {
            assert_eq!(memory(octets), text);
        }
    }

    #[test]
    fn times_have_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m01s"), (3_723, "1h02m"), (90_000, "1d01h")]
        {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn short_times_have_the_unit_that_fits() {
        let shown = [0.0, 0.000_041, 0.0312, 1.25].map(duration);
        assert_eq!(shown, ["0us", "41us", "31.2ms", "1.2s"]);
    }

    #[test]
    fn a_small_share_is_not_none() {
        assert_eq!([percent(0.0), percent(0.01), percent(99.96)], ["0.0%", "<0.1%", "100.0%"]);
    }
}
