//! Figures in few signs, for rows and cards. `capturer top` shows them so, and the status page the same (admin/page/page.js
//! has the rule in its own language): whoever has both open must not wonder which is right.

/// `51 B`, `9.8 KiB`, `58 MiB`: eight signs at most.
pub fn bytes_text(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // With a decimal where that says more than the number.
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `0.3 s`, `29 s`, `12 min`, `3 h`, `2 d`: seven signs at most.
pub fn duration_text(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => super::age::age_text(ms / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_columns() {
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (10_137, "9.9 KiB"),
            (10_190, "10 KiB"),
            (1_048_575, "1024 KiB"),
            (1_048_576, "1.0 MiB"),
            (58 << 30, "58 GiB"),
        ] {
            assert_eq!(bytes_text(count), text);
        }
        for (ms, text) in [
            (0, "0.0 s"),
            (9_999, "9.9 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_199_000, "119 min"),
            (7_200_000, "2 h"),
            (400 * 86_400_000, "400 d"),
        ] {
            assert_eq!(duration_text(ms), text);
        }
    }
}
