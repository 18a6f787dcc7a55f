//! Amounts of bytes as people read them.

/// A size.
pub(super) fn in_words(bytes: u64) -> String {
    let (unit, name) = unit(bytes);
    format!("{} {name}", number(bytes, unit))
}

/// So much of it: `3 of 10 GB`.
pub(super) fn of_in_words(done: u64, total: u64) -> String {
    let (unit, name) = unit(total);
    format!("{} of {} {name}", number(done.min(total), unit), number(total, unit))
}

fn unit(bytes: u64) -> (u64, &'static str) {
    match bytes {
        1_000_000_000.. => (1_000_000_000, "GB"),
        _ => (1_000_000, "MB"),
    }
}

fn number(bytes: u64, unit: u64) -> String {
    format!("{:.1}", bytes as f64 / unit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(in_words(3_200_000_000), "3.2 GB");
        assert_eq!(in_words(70_000), "0.1 MB");
        assert_eq!(of_in_words(3_040_000_000, 10_000_000_000), "3.0 of 10.0 GB");
        assert_eq!(of_in_words(7, 5_000_000), "0.0 of 5.0 MB");
    }
}
