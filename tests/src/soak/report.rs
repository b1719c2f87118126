//! A soak in words: the live table (80 columns), the last lines, and the Markdown report.

use std::fmt::Write as _;

use super::verdict::{growth, settled};
use super::{Plan, Sample, Soak};

/// What the predecessor did in the same minutes, by its own operators' measurements.
const PREDECESSOR: &str =
    "34 goroutines a minute, 15 descriptors a minute, each container rotated once in 30 minutes";

/// The live table's head.
pub const HEAD: &str = " time   age tasks thr  ops  fds dockerd   MiB rotations    lines  lag lost twice";

/// A line of the live table, under [`HEAD`].
pub fn row(sample: &Sample) -> String {
    let seconds = sample.at.as_secs();
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let lines = &sample.lines;
    let rest = |of: fn(&super::Rest) -> u64| number(sample.rest.as_ref().map(of));
    format!(
        "{:>2}:{:02} {:>5.1} {:>5} {:>3} {:>4} {:>4} {:>7} {:>5.1} {:>9} {:>8} {:>4} {:>4} {:>5}",
        seconds / 60,
        seconds % 60,
        sample.age_max.as_secs_f64(),
        sample.tasks,
        rest(|rest| rest.threads),
        rest(|rest| rest.operations),
        rest(|rest| rest.fds),
        rest(|rest| rest.dockerd_fds),
        sample.rss_bytes as f64 / (1 << 20) as f64,
        format!("{}-{}", least(sample), most(sample)),
        short(lines.delivered),
        short(lines.printed.saturating_sub(lines.delivered)),
        lines.lost,
        lines.duplicated,
    )
}

fn least(sample: &Sample) -> u64 {
    sample.rotations.first().copied().unwrap_or(0)
}

fn most(sample: &Sample) -> u64 {
    sample.rotations.last().copied().unwrap_or(0)
}

/// A number in at most four digits or so.
fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{}k", number / 1_000),
        _ => format!("{}M", number / 1_000_000),
    }
}

/// The plan in a line or two.
pub fn title(plan: &Plan) -> String {
    format!(
        "{} containers ({} idle, {} chatty at up to {} lines/s),\nDocker {}, read by {}, rotation {:?}, {} slots, {} minutes",
        plan.containers,
        plan.idle,
        plan.chatty,
        plan.chatty_rate,
        plan.engine.label(),
        plan.read_from,
        plan.rotation,
        plan.slots,
        plan.length.as_secs_f64() / 60.0
    )
}

/// The last lines: what it came to.
pub fn verdict(soak: &Soak) -> String {
    let mut text = String::new();
    for grown in growth(soak) {
        let change = grown.last as i64 - grown.first as i64;
        let _ = writeln!(text, "{:<24} {:>10} → {:<10} ({change:+})", grown.what, grown.first, grown.last);
    }
    let lines = &soak.lines;
    let _ = writeln!(
        text,
        "lines: {} printed, {} delivered, {} lost, {} twice",
        lines.printed, lines.delivered, lines.lost, lines.duplicated
    );
    if let (Some(least), Some(most)) = (soak.rotations.first(), soak.rotations.last()) {
        let _ = writeln!(
            text,
            "rotations: {least} to {most} a container; oldest stream {:.2} s; longest wait for a slot {:.2} s;\n\
             the machine was up to {:.2} s late",
            soak.age_max().as_secs_f64(),
            soak.wait_max.as_secs_f64(),
            soak.late_max().as_secs_f64()
        );
    }
    for complaint in &soak.complaints {
        let _ = writeln!(text, "FAILED: {complaint}");
    }
    text += if soak.complaints.is_empty() { "PASSED\n" } else { "NOT PASSED\n" };
    text
}

/// The report for docs/soak/.
pub fn markdown(soak: &Soak, command: &str, kernel: &str) -> String {
    let plan = &soak.plan;
    let mut text =
        format!("# Soak: {}\n\n", if soak.complaints.is_empty() { "passed" } else { "not passed" });
    let _ = writeln!(text, "{}. Linux {kernel}.\n", title(plan).replace('\n', " "));
    let _ = writeln!(text, "Printed again by `{command}`.\n");
    let _ = writeln!(
        text,
        "Growth is the difference between the first sample after a minute and the last. A sample is the median of those \
         looks of ten seconds at which every slot's stream waits in a read, so that equal things are compared. A stream may \
         be older than its interval by a tenth, by as much as the machine let the looks themselves be late, and by what the \
         Engine took to open a log for the soak itself.\n"
    );
    let _ = writeln!(text, "| | at first | at the end | growth a minute |\n|---|---:|---:|---:|");
    let counted = settled(&soak.plan, &soak.samples);
    let minutes = match (counted.first(), counted.last()) {
        (Some(first), Some(last)) => (last.at - first.at).as_secs_f64() / 60.0,
        _ => 0.0,
    };
    for grown in growth(soak) {
        let each = (grown.last as f64 - grown.first as f64) / minutes.max(1.0);
        let _ = writeln!(text, "| {} | {} | {} | {each:.2} |", grown.what, grown.first, grown.last);
    }
    let _ = writeln!(text, "\nThe predecessor, on the same number of containers: {PREDECESSOR}.\n");
    let lines = &soak.lines;
    let _ = writeln!(text, "| | |\n|---|---:|");
    let mut fact = |what: &str, number: String| {
        let _ = writeln!(text, "| {what} | {number} |");
    };
    fact("lines printed", lines.printed.to_string());
    fact("lines delivered", lines.delivered.to_string());
    fact("lost", lines.lost.to_string());
    fact("twice", lines.duplicated.to_string());
    fact(
        "lines a second, all containers",
        format!("{:.0}", lines.printed as f64 / plan.length.as_secs_f64()),
    );
    if let (Some(least), Some(most)) = (soak.rotations.first(), soak.rotations.last()) {
        fact("rotations of a container, least and most", format!("{least}, {most}"));
    }
    fact("oldest stream seen", format!("{:.2} s", soak.age_max().as_secs_f64()));
    fact("longest wait for a slot", format!("{:.2} s", soak.wait_max.as_secs_f64()));
    fact("latest look, by what the machine was busy with", format!("{:.2} s", soak.late_max().as_secs_f64()));
    for complaint in &soak.complaints {
        let _ = writeln!(text, "\n**Failed:** {complaint}");
    }
    if let Some(last) = soak.samples.last() {
        let list = |numbers: &std::collections::BTreeMap<String, u64>| {
            numbers.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(text, "\nThe agent's descriptors at the end, by kind: {}.", list(&last.fds));
        if !last.owners.is_empty() {
            let _ = writeln!(text, "By owner, from the kernel's account: {}.", list(&last.owners));
        }
    }
    let _ = writeln!(text, "\n```text\n{HEAD}");
    for sample in &soak.samples {
        let _ = writeln!(text, "{}", row(sample));
    }
    let _ = writeln!(text, "```");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Lines, Plan, Rest, Sample, Soak, verdict};
    use super::*;
    use crate::engine::EngineVersion;

    fn sample(seconds: u64, fds: u64) -> Sample {
        Sample {
            at: Duration::from_secs(seconds),
            looks: (100, 80),
            rest: Some(Rest { fds, threads: 5, operations: 104, dockerd_fds: 310 }),
            tasks: 2,
            fds: [("socket".to_owned(), 56)].into(),
            owners: [].into(),
            rss_bytes: 30 << 20,
            rotations: vec![90, 95],
            age_max: Duration::from_millis(2_010),
            wait_max: Duration::ZERO,
            late_max: Duration::ZERO,
            opening_max: Duration::ZERO,
            lines: Lines { printed: 12_345_678, delivered: 12_345_600, ..Lines::default() },
            declared_bytes: 0,
        }
    }

    fn soak(fds_last: u64, lost: u64) -> Soak {
        let plan = Plan {
            engine: EngineVersion::V20_10,
            containers: 2,
            idle: 1,
            chatty: 1,
            chatty_rate: 2_000,
            length: Duration::from_secs(180),
            rotation: Duration::from_secs(2),
            slots: 50,
            read_from: "api",
        };
        let samples = vec![sample(50, 70), sample(60, 99), sample(180, fds_last)];
        let lines = Lines { printed: 100, delivered: 100 - lost, lost, ..Lines::default() };
        let mut soak = Soak {
            plan,
            samples,
            lines,
            rotations: vec![90, 95],
            wait_max: Duration::ZERO,
            complaints: Vec::new(),
        };
        soak.complaints = verdict::complaints(&soak);
        soak
    }

    #[test]
    fn rows_fit_80_columns() {
        for line in [HEAD.to_owned(), row(&sample(3_599, 9_999))] {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
        assert!(title(&soak(99, 0).plan).lines().all(|line| line.len() <= 80));
    }

    /// The predecessor's scripts measured the wrong thing and reported success.
    #[test]
    fn one_descriptor_more_or_one_line_less_is_not_passed() {
        assert_eq!(soak(99, 0).complaints, Vec::<String>::new());
        assert!(soak(100, 0).complaints[0].contains("descriptors grew from 99 to 100"));
        assert!(soak(99, 1).complaints[0].contains("1 left out"));
        let mut slow = soak(99, 0);
        (slow.rotations, slow.samples[1].age_max) = (vec![60, 90], Duration::from_secs(3));
        assert_eq!(verdict::complaints(&slow).len(), 2);
        // On a machine that did not let us look either.
        slow.samples[1].late_max = Duration::from_secs(1);
        assert_eq!(verdict::complaints(&slow).len(), 1);
        let mut blind = soak(99, 0);
        blind.samples.iter_mut().for_each(|sample| sample.rest = None);
        assert!(verdict::complaints(&blind)[0].contains("can't be judged"));
    }

    #[test]
    fn the_report_says_the_verdict_first() {
        let text = markdown(&soak(100, 0), "cargo xtask soak", "6.18");
        assert!(
            text.starts_with("# Soak: not passed\n") && text.contains("| descriptors | 99 | 100 | 0.50 |")
        );
        assert!(markdown(&soak(99, 0), "", "").starts_with("# Soak: passed\n"));
    }
}
