//! Whether two patterns for paths can match the same path: a pipeline with paths that no pattern of `file_monitor` can
//! match never gets a line.

use super::PathPattern;
use super::path_pattern::Part;

/// Whether some path may match both. Wildcards within a name are not compared with each other, so the answer may be a
/// wrong yes.
pub(super) fn may_meet(one: &PathPattern, other: &PathPattern) -> bool {
    let pairs = one.alternatives().iter().flat_map(|a| other.alternatives().iter().map(move |b| (a, b)));
    pairs.into_iter().any(|(a, b)| meet(a, b))
}

/// A table of how many parts of both patterns the same names can have matched.
fn meet(a: &[Part], b: &[Part]) -> bool {
    let mut reached = vec![vec![false; b.len() + 1]; a.len() + 1];
    reached[0][0] = true;
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if !reached[i][j] {
                continue;
            }
            let (of_a, of_b) = (a.get(i), b.get(j));
            // `**` matches nothing, or one more name of the other pattern.
            if let Some(Part::Directories) = of_a {
                reached[i + 1][j] = true;
                reached[i][(j + 1).min(b.len())] = true;
            }
            if let Some(Part::Directories) = of_b {
                reached[i][j + 1] = true;
                reached[(i + 1).min(a.len())][j] = true;
            }
            if let (Some(of_a), Some(of_b)) = (of_a, of_b)
                && same_name(of_a, of_b)
            {
                reached[i + 1][j + 1] = true;
            }
        }
    }
    reached[a.len()][b.len()]
}

fn same_name(a: &Part, b: &Part) -> bool {
    match (a, b) {
        (Part::Name(a), Part::Name(b)) => a == b,
        (Part::Name(name), Part::Wild(wild)) | (Part::Wild(wild), Part::Name(name)) => {
            wild.matches_hidden(name)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_could_name_one_path() {
        let meet = |a: &str, b: &str| {
            let pattern = |text: &str| PathPattern::new(text).unwrap();
            let (a, b) = (pattern(a), pattern(b));
            assert_eq!(may_meet(&a, &b), may_meet(&b, &a));
            may_meet(&a, &b)
        };
        for (a, b) in [
            ("/l/*.log", "/l/pay.log"),
            ("/l/*.log", "/l/pay*"),
            ("/l/**/*.log", "/l/pay.log"),
            ("/l/**", "/l/a/b/c.log"),
            ("/**/pay.log", "/srv/**/*.log"),
            ("/{a,b}/x.log", "/b/*"),
            ("/l/*", "/l/.hidden"),
        ] {
            assert!(meet(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("/l/*.log", "/logs/pay*.log"),
            ("/l/*.log", "/l/pay.txt"),
            ("/l/*.log", "/l/a/pay.log"),
            ("/l/**/*.log", "/k/pay.log"),
            ("/{a,b}/x.log", "/c/*"),
            ("/l/pay.log", "/l/payment.log"),
        ] {
            assert!(!meet(a, b), "{a} {b}");
        }
    }
}
