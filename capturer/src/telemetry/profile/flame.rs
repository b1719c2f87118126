//! A profile as a flame graph: a picture that any browser shows. It has no script and no style sheet, so the admin
//! server's policy for browsers holds for it, too. Each box has its function's full name and share as a tooltip.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{HERTZ, Profile};
use crate::text::counted::counted;

const WIDTH: f64 = 1400.0;
const ROW: f64 = 17.0;
const HEAD: f64 = 56.0;
/// Width of a character in the 12 px monospaced font.
const CHARACTER: f64 = 7.3;
/// Narrower boxes are omitted, with everything on top of them.
const NARROWEST: f64 = 0.4;
/// Prefix of the agent's own functions.
const OURS: &str = "capturer::";

/// A function, as called by those below it.
#[derive(Default)]
struct Node<'a> {
    samples: u64,
    callees: BTreeMap<&'a str, Node<'a>>,
}

impl Node<'_> {
    fn depth(&self) -> usize {
        1 + self.callees.values().map(Node::depth).max().unwrap_or(0)
    }
}

/// The picture as SVG.
pub(crate) fn svg(profile: &Profile) -> String {
    let mut all = Node::default();
    for (stack, samples) in &profile.stacks {
        all.samples += samples;
        let mut node = all.callees.entry(&*stack.thread).or_default();
        node.samples += samples;
        for frame in &stack.frames {
            node = node.callees.entry(&*frame.name).or_default();
            node.samples += samples;
        }
    }
    let height = HEAD + ROW * all.depth() as f64 + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"monospace\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let _ = writeln!(text, "<text x=\"10\" y=\"20\">{}</text>", escaped(&heading(profile)));
    let _ = writeln!(text, "<text x=\"10\" y=\"38\" fill=\"#555555\">{}</text>", escaped(&profile.note));
    let place = Place { left: 10.0, width: WIDTH - 20.0, row: 0, height, all: all.samples };
    draw(&mut text, "all threads", &all, place);
    text.push_str("</svg>\n");
    text
}

/// The text above the picture.
fn heading(profile: &Profile) -> String {
    let (samples, seconds) = (profile.samples(), profile.time.as_secs_f64());
    let mut said = format!(
        "capturer {} ({}): {} in {seconds:.1} s, {HERTZ} for each second of processor time",
        env!("CARGO_PKG_VERSION"),
        env!("CAPTURER_COMMIT"),
        counted(samples, "sample"),
    );
    if samples == 0 {
        said += "; the agent used next to none, so there is nothing to see";
    }
    if profile.missed > 0 {
        let _ = write!(said, "; {} more did not fit", profile.missed);
    }
    said
}

#[derive(Clone, Copy)]
struct Place {
    left: f64,
    width: f64,
    row: usize,
    height: f64,
    all: u64,
}

fn draw(text: &mut String, name: &str, node: &Node<'_>, place: Place) {
    if place.width < NARROWEST || node.samples == 0 {
        return;
    }
    let y = place.height - 10.0 - ROW * (place.row as f64 + 1.0);
    let share = node.samples as f64 * 100.0 / place.all as f64;
    let fill = match () {
        () if place.row < 2 => "#d9d9d9",
        () if name.contains(OURS) => "#f4a261",
        () => "#fbe3c8",
    };
    let _ = writeln!(
        text,
        "<g><title>{name}: {}, {share:.1} %</title><rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
         height=\"{}\" rx=\"1\" fill=\"{fill}\"/>{}</g>",
        counted(node.samples, "sample"),
        place.left,
        (place.width - 0.5).max(0.2),
        ROW - 1.0,
        label(name, place, y),
        name = escaped(name),
    );
    let mut left = place.left;
    for (name, callee) in &node.callees {
        let width = place.width * callee.samples as f64 / node.samples as f64;
        draw(text, name, callee, Place { left, width, row: place.row + 1, ..place });
        left += width;
    }
}

/// The end of a path says more than its beginning.
fn label(name: &str, place: Place, y: f64) -> String {
    let room = ((place.width - 6.0) / CHARACTER) as usize;
    if room < 3 {
        return String::new();
    }
    let count = name.chars().count();
    let shown: String = if count <= room {
        name.to_owned()
    } else {
        "…".chars().chain(name.chars().skip(count + 1 - room)).collect()
    };
    format!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", place.left + 3.0, y + 12.0, escaped(&shown))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // XML can't contain other control characters.
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, Stack};
    use super::*;

    fn stack(thread: &str, names: &[&str]) -> Stack {
        let frames = names.iter().map(|name| Frame { name: (*name).into(), ..Frame::default() }).collect();
        Stack { thread: thread.into(), frames }
    }

    #[test]
    fn a_box_is_as_wide_as_its_share() {
        let stacks = [
            (stack("sink", &["main", "capturer::write<T>"]), 3),
            (stack("sink", &["main", "libc & others"]), 1),
        ];
        let text = svg(&Profile { stacks: stacks.into(), note: "a note".into(), ..Profile::default() });
        assert!(text.contains("<title>capturer::write&lt;T&gt;: 3 samples, 75.0 %</title>"), "{text}");
        assert!(text.contains("width=\"1034.5\"") && text.contains("width=\"344.5\""), "{text}");
        assert!(text.contains("libc &amp; others: 1 sample,") && text.contains(">a note<"), "{text}");
        assert_eq!(text.matches("<g>").count(), text.matches("</g>").count());
    }

    #[test]
    fn an_idle_agent_says_so() {
        assert!(svg(&Profile::default()).contains("0 samples in 0.0 s"));
        assert!(svg(&Profile::default()).contains("nothing to see"));
    }

    #[test]
    fn a_name_is_cut_at_its_front() {
        let place = Place { left: 0.0, width: 60.0, row: 0, height: 100.0, all: 1 };
        assert!(label("capturer::sink::runtime::run", place, 0.0).contains(">…e::run<"));
        assert!(label("run", place, 0.0).contains(">run<"));
        assert_eq!(label("run", Place { width: 20.0, ..place }, 0.0), "");
    }
}
