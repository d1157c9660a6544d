use indicatif::BinaryBytes;

/// `1.2 s`, `34 s`, `3 min 12 s`, `1 h 20 min`.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = whole(seconds);
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600.. => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// The nearest whole number of seconds; times before the start count as 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` clamps to what a u64 can hold")]
pub(super) fn whole(seconds: f64) -> u64 {
    seconds.round() as u64
}

/// `1 cell`, `2 cells`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `1.50 MiB of 3.00 MiB`, `12 of 30 layers`, `12 layers` while the total is unknown.
pub(super) fn amount(done: u64, total: Option<u64>, unit: &str) -> String {
    match (total, unit) {
        (Some(total), "bytes") => format!("{} of {}", BinaryBytes(done), BinaryBytes(total)),
        (None, "bytes") => BinaryBytes(done).to_string(),
        (Some(total), _) => format!("{done} of {total} {unit}"),
        (None, _) => format!("{done} {unit}"),
    }
}

/// `3/16 requests`, `3 requests` where a duration ends the load point.
pub(super) fn requests(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{done}/{total} requests"),
        None => count(done, "request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        for (given, expected) in [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.7, "1 min 0 s"),
            (192.2, "3 min 12 s"),
            (4800.0, "1 h 20 min"),
        ] {
            assert_eq!(seconds(given), expected);
        }
    }

    #[test]
    fn amounts_name_their_unit() {
        assert_eq!(amount(3 << 19, Some(3 << 20), "bytes"), "1.50 MiB of 3.00 MiB");
        assert_eq!(amount(3 << 19, None, "bytes"), "1.50 MiB");
        assert_eq!(amount(12, Some(30), "layers"), "12 of 30 layers");
        assert_eq!(requests(1, None), "1 request");
    }
}
