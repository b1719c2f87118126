//! How long ago something was, for people: `40 s`, `3 h`, `400 d`.

/// The age in the largest unit of which it has at least two.
pub fn age_text(seconds: u64) -> String {
    let (unit, seconds_of_unit) = match seconds {
        0..120 => ("s", 1),
        120..7_200 => ("min", 60),
        7_200..172_800 => ("h", 3_600),
        _ => ("d", 86_400),
    };
    format!("{} {unit}", seconds / seconds_of_unit)
}

#[cfg(test)]
mod tests {
    use super::age_text;

    #[test]
    fn the_unit_fits_the_age() {
        let check = |seconds, text: &str| assert_eq!(age_text(seconds), text);
        check(0, "0 s");
        check(119, "119 s");
        check(120, "2 min");
        check(7_199, "119 min");
        check(7_200, "2 h");
        check(172_799, "47 h");
        check(400 * 86_400 + 5, "400 d");
    }
}
