//! What `capturer top` draws on a terminal: what is wrong, the figures, a row for each source, and the details of one
//! on Enter. Pure: makes a frame of a view and the user's choices.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, TableState, Wrap};

use super::View;
use super::fold::{Order, Source, details, sources};
use super::words::{self, Tone};
use crate::text::counted::counted;
use crate::text::terminal::printable;

/// The user's choices.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub order: Order,
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    pub row: usize,
    /// The selected source: rows move as their rates change, and the selection moves with its source.
    pub key: Option<String>,
    /// The selected source fills the screen.
    pub detail: bool,
    /// How many lines its details are scrolled.
    pub scroll: u16,
    /// Without colours; what is bold stays so.
    pub plain: bool,
}

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Enter,
    Escape,
    Back,
    /// Leaves, whatever is open.
    Leave,
    Char(char),
}

impl Chosen {
    /// Takes a key; returns false if the user wants to leave.
    pub fn press(&mut self, key: Key) -> bool {
        if key == Key::Leave {
            return false;
        }
        if self.typing {
            match key {
                Key::Enter => self.typing = false,
                Key::Escape => (self.typing, self.filter) = (false, String::new()),
                Key::Back => drop(self.filter.pop()),
                Key::Char(c) => self.filter.push(c),
                _ => {}
            }
            (self.row, self.key) = (0, None);
            return true;
        }
        match key {
            Key::Char('q') => return false,
            Key::Escape if self.detail => self.detail = false,
            Key::Escape => self.filter.clear(),
            Key::Enter => (self.detail, self.scroll) = (!self.detail, 0),
            Key::Char('s') if !self.detail => {
                (self.order, self.row, self.key) = (self.order.next(), 0, None);
            }
            Key::Char('/') if !self.detail => self.typing = true,
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::PageUp => self.step(-10),
            Key::PageDown => self.step(10),
            _ => {}
        }
        true
    }

    fn step(&mut self, by: isize) {
        if self.detail {
            self.scroll = self.scroll.saturating_add_signed(by as i16);
        } else {
            (self.row, self.key) = (self.row.saturating_add_signed(by), None);
        }
    }
}

/// Draws the screen.
pub(super) fn draw(frame: &mut Frame, view: &View, chosen: &mut Chosen) {
    let all = sources(&view.streams, "", chosen.order).len();
    let sources = sources(&view.streams, &chosen.filter, chosen.order);
    let of_key = sources.iter().position(|source| chosen.key.as_ref() == Some(&source.key));
    chosen.row = of_key.unwrap_or(chosen.row).min(sources.len().saturating_sub(1));
    chosen.key = sources.get(chosen.row).map(|source| source.key.clone());
    let area = frame.area();
    // What is wrong may take at most half of the screen.
    let head = words::head(view, usize::from(area.width), false);
    // A word wider than the screen, such as a path, would be cut.
    let wide = usize::from(area.width).max(1);
    let parts = |line: String| -> Vec<String> {
        let signs: Vec<char> = line.chars().collect();
        signs.chunks(wide).map(String::from_iter).collect()
    };
    let mut trouble: Vec<Line> = head
        .into_iter()
        .flat_map(|(tone, line)| parts(line).into_iter().map(move |part| Line::styled(part, style_of(tone))))
        .collect();
    let room = usize::from(area.height / 2).max(1);
    if trouble.len() > room {
        let more = trouble.len() - room + 1;
        trouble.truncate(room - 1);
        trouble.push(Line::raw(format!("… {} more: capturer top --once", counted(more as u64, "line"))));
    }
    let figures = words::figures(view, sources.len(), all, usize::from(area.width));
    let figures: Vec<Line> = figures.into_iter().map(Line::raw).collect();
    let [top, figures_at, middle, bottom] = Layout::vertical([
        Constraint::Length(trouble.len() as u16),
        Constraint::Length(figures.len() as u16),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(trouble), top);
    frame.render_widget(Paragraph::new(figures), figures_at);
    let below = match sources.get(chosen.row).filter(|_| chosen.detail) {
        Some(source) => {
            draw_details(frame, middle, source, chosen.scroll);
            0
        }
        None => draw_table(frame, middle, &sources, (chosen.row, view.silent.is_some())),
    };
    frame.render_widget(
        Paragraph::new(foot(chosen, below, wide)).style(Style::new().add_modifier(Modifier::REVERSED)),
        bottom,
    );
    if chosen.plain {
        for cell in &mut frame.buffer_mut().content {
            (cell.fg, cell.bg) = (Color::Reset, Color::Reset);
        }
    }
}

/// The style of a line of the head.
fn style_of(tone: Tone) -> Style {
    match tone {
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Warning => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
        Tone::Well => Style::new().fg(Color::Green).add_modifier(Modifier::BOLD),
        Tone::Note => Style::new().fg(Color::Yellow),
        Tone::Quiet => Style::new().add_modifier(Modifier::DIM),
        Tone::Plain => Style::new(),
    }
}

/// Number columns are as wide as their numbers; name and state share the rest. Returns how many rows are below.
fn draw_table(frame: &mut Frame, area: Rect, sources: &[Source], (row, is_old): (usize, bool)) -> usize {
    let (name_width, what_width) = words::widths(usize::from(area.width));
    let rows = sources.iter().map(|source| {
        let style = match source.attention {
            2.. => Style::new().fg(Color::Red),
            1 => Style::new().fg(Color::Yellow),
            0 => Style::new(),
        };
        let style = if is_old { style.add_modifier(Modifier::DIM) } else { style };
        Row::new(words::cells(source, name_width, what_width)).style(style)
    });
    let widths = [
        Constraint::Length(name_width as u16),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Min(10),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(words::HEADS).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(row));
    frame.render_stateful_widget(table, area, &mut state);
    let (head, above) = (1, state.offset());
    sources.len().saturating_sub(above + usize::from(area.height).saturating_sub(head))
}

fn draw_details(frame: &mut Frame, area: Rect, source: &Source, scroll: u16) {
    let name = Style::new().add_modifier(Modifier::BOLD);
    let lines: Vec<Line> = details(source)
        .into_iter()
        .map(|(key, value)| {
            Line::from(vec![Span::styled(format!("{key}: "), name), Span::raw(printable(&value))])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll, 0)), area);
}

/// What is not shown, and the keys. A part that has no room is left out whole.
fn foot(chosen: &Chosen, below: usize, columns: usize) -> String {
    if chosen.typing {
        return format!(" filter: {}_   Enter: keep, Esc: clear", chosen.filter);
    }
    if chosen.detail {
        return parts(&["Enter, Esc: back", "q: leave", "↑ ↓: scroll"], &[0, 2, 1], columns);
    }
    // A user who forgets the filter looks for sources that are hidden, so the filter is cut last.
    let filter = match chosen.filter.as_str() {
        "" => String::new(),
        filter => format!("only: {filter} (Esc: clear)"),
    };
    let below = if below > 0 { format!("↓ {below} more") } else { String::new() };
    let sort = format!("s: sort ({})", chosen.order.as_str());
    let by_weight = [&filter, &below, "Enter: details", "q: leave", &sort, "/: filter"];
    parts(&by_weight, &[0, 1, 2, 4, 5, 3], columns)
}

/// As many of these parts as have room, the first ones first, in this order of places.
fn parts(by_weight: &[&str], places: &[usize], columns: usize) -> String {
    let (mut used, mut has_room) = (0, vec![false; by_weight.len()]);
    for (at, part) in by_weight.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
        let gap = if used == 0 { 1 } else { 3 };
        let width = gap + part.chars().count();
        // The first is shown even if it is cut.
        if used == 0 || used + width <= columns {
            (used, has_room[at]) = (used + width, true);
        }
    }
    let shown: Vec<&str> = places.iter().filter(|at| has_room[**at]).map(|at| by_weight[*at]).collect();
    format!(" {}", shown.join("   "))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::telemetry::health_text::HealthText;

    fn told(component: &str, title: &str, lines: &[&str], runbook: &str) -> (String, HealthText) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let told = HealthText {
            title: title.to_owned(),
            lines,
            runbook: runbook.to_owned().into(),
            ..HealthText::default()
        };
        (component.to_owned(), told)
    }

    pub(in super::super) fn view() -> View {
        let long =
            "/var/lib/docker/containers/0123456789abcdef/0123456789abcdef-json.log: No space left on device";
        let stream = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
        View {
            address: "127.0.0.1:8001".to_owned(),
            healthy: false,
            problems: BTreeMap::from([
                ("docker".to_owned(), "no answer".to_owned()),
                ("losses".to_owned(), format!("lost for local_file: 7 bytes of container web; {long}")),
            ]),
            warnings: BTreeSet::new(),
            notes: BTreeMap::new(),
            pipelines: String::new(),
            sent: BTreeMap::from([("local_file".to_owned(), 12)]),
            spools: Vec::new(),
            lines_per_second: 34.5,
            lag_bytes: 60_000,
            unread_unknown: 1,
            sources: 2,
            losses: 1,
            told: BTreeMap::from([
                told("docker", "Docker does not answer", &["no answer"], "component-unhealthy"),
                told(
                    "losses",
                    "Lines are being lost",
                    &[
                        "Lines are being lost: 7 bytes",
                        &format!("lost for local_file: 7 bytes of container web; {long}"),
                    ],
                    "losses",
                ),
            ]),
            silent: None,
            fresh: true,
            age_ms: 0,
            streams: vec![
                stream(serde_json::json!({
                    "key": "c:1", "name": "web-with-a-name-that-is-longer-than-its-column-allows\u{1b}[2J", "state": "following",
                    "lines_per_second": 25.0, "lag_bytes": 20_480, "last_line_age_ms": 900, "says": "follows its file", "operation": "read",
                    "operation_deadline_ms": 12_000
                })),
                stream(serde_json::json!({
                    "key": "c:2", "name": "db", "state": "waiting", "failures": 3, "last_error": long, "cause": "backs off",
                    "attention": 2, "says": "waits: disk full: /var/lib/docker/containers/0123456789abcdef"
                })),
            ],
        }
    }

    pub(in super::super) fn screen(width: u16, height: u16, chosen: &mut Chosen) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &view(), chosen)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    /// Golden: losses come first and uncut, then what is wrong, and each source shows its state.
    #[test]
    fn eighty_columns_show_what_waits_and_why() {
        let lines = screen(80, 24, &mut Chosen::default());
        let expected = [
            "✗ Lines are being lost: 7 bytes",
            "  lost for local_file: 7 bytes of container web;",
            "    /var/lib/docker/containers/0123456789abcdef/0123456789abcdef-json.log: No",
            "    space left on device",
            "  component: losses, runbook: losses",
            "✗ Docker does not answer",
            "  no answer",
            "  component: docker, runbook: component-unhealthy",
            "2 sources, 34.5 lines/s, unread 59 KiB + ? (1 source not known), losses 1;",
            "delivered: local_file 12",
            "SOURCE                     LINES/S   UNREAD    LAST STATE",
            "db                             0.0        -       - waits: disk full: /var/lib/…",
            "web-with-a-n…n-allows?[2J     25.0   20 KiB   0.9 s follows its file",
        ];
        assert_eq!(lines[..13], expected, "{lines:#?}");
        assert!(lines[23].starts_with(" Enter: details   s: sort (trouble first)"), "{lines:#?}");
    }

    /// A leak is no outage: it must look neither like one, nor as if its detector had failed.
    #[test]
    fn a_leak_is_a_warning_behind_what_is_worse() {
        let mut view = view();
        view.problems.insert("leak_detector".to_owned(), "the agent leaks a file descriptor".to_owned());
        view.warnings.insert("leak_detector".to_owned());
        let lines = words::head(&view, 80, false);
        let (tone, last) = lines.last().unwrap();
        assert_eq!((*tone, last.as_str()), (Tone::Plain, "  the agent leaks a file descriptor"));
        let (tone, last) = &lines[lines.len() - 2];
        assert_eq!((*tone, last.as_str()), (Tone::Warning, "! leak_detector"));
        let (tone, first) = &lines[0];
        assert!(*tone == Tone::Bad && first.starts_with("✗ Lines are being lost:"), "{lines:?}");
        let colours = [Tone::Bad, Tone::Warning].map(|tone| style_of(tone).fg);
        assert_eq!(colours, [Some(Color::Red), Some(Color::Yellow)]);
    }

    /// The last digits of a figure were once cut at the edge, and nothing showed it.
    #[test]
    fn figures_and_names_are_whole_or_say_that_they_are_not() {
        let lines = screen(40, 30, &mut Chosen::default());
        assert!(lines.concat().contains("delivered: local_file 12"), "{lines:#?}");
        assert_eq!(words::name_in("/var/log/customer-1/nginx/access.log", 25), "…tomer-1/nginx/access.log");
        assert_eq!(words::name_in("/var/log/nginx/access.log", 25), "/var/log/nginx/access.log");
        assert_eq!(words::begin_of("follows: read (12s left)", 12), "follows: re…");
    }

    #[test]
    fn wide_screens_show_whole_names_and_long_texts_wrap_in_the_detail() {
        let lines = screen(200, 50, &mut Chosen::default());
        assert!(lines.iter().any(|line| line.contains("than-its-column-allows?[2J")), "{lines:#?}");
        let mut chosen = Chosen { detail: true, ..Chosen::default() };
        let text = screen(40, 30, &mut chosen).concat();
        assert!(text.contains("last error:") && text.contains("left on device"), "{text}");
    }

    /// Old rows must not look current, and a hidden filter must not hide sources.
    #[test]
    fn a_silent_agent_and_a_filter_are_seen_first() {
        let mut view = view();
        view.silent = Some("The agent at h:1 has not answered for 12 s".to_owned());
        let mut chosen = Chosen { filter: "web".to_owned(), ..Chosen::default() };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &view, &mut chosen)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y: u16| (0..80).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        assert!(line(0).starts_with("✗ The agent at h:1 has not answered for 12 s"), "{}", line(0));
        assert!(line(23).starts_with(" only: web (Esc: clear)"), "{}", line(23));
        let row = (0..24).find(|y| line(*y).starts_with("web-with")).unwrap();
        assert!(buffer[(0, row)].modifier.contains(Modifier::DIM));
    }

    /// At 40 columns the foot ended in "/: fil", and nothing said that there were more rows.
    #[test]
    fn the_foot_has_whole_words_and_counts_the_rows_below() {
        let chosen = Chosen::default();
        let at = |columns: usize| foot(&chosen, 12, columns);
        assert_eq!(at(100), " ↓ 12 more   Enter: details   s: sort (trouble first)   /: filter   q: leave");
        assert_eq!(at(60), " ↓ 12 more   Enter: details   /: filter   q: leave");
        assert_eq!(at(40), " ↓ 12 more   Enter: details   q: leave");
        assert_eq!(at(12), " ↓ 12 more");
        let small = screen(80, 10, &mut Chosen::default());
        assert!(small.last().unwrap().starts_with(" ↓ 1 more   Enter"), "{small:#?}");
        let all = screen(80, 24, &mut Chosen::default());
        assert!(!all.last().unwrap().contains('↓'), "{all:#?}");
    }

    #[test]
    fn without_colours_nothing_is_coloured() {
        let colours = |plain: bool| {
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            let mut chosen = Chosen { plain, ..Chosen::default() };
            terminal.draw(|frame| draw(frame, &view(), &mut chosen)).unwrap();
            let cells = &terminal.backend().buffer().content;
            cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(colours(false) && !colours(true));
    }

    #[test]
    fn keys_do_what_the_foot_says() {
        let mut chosen = Chosen::default();
        for key in [Key::Char('/'), Key::Char('d'), Key::Char('q'), Key::Back, Key::Char('b'), Key::Enter] {
            assert!(chosen.press(key), "{key:?} does not leave while a filter is typed");
        }
        assert_eq!((chosen.filter.as_str(), chosen.typing), ("db", false));
        assert!(
            screen(80, 24, &mut chosen)
                .iter()
                .any(|line| line.contains("1 of 2 sources; all of them: 34.5 lines/s"))
        );
        chosen.press(Key::Escape);
        chosen.press(Key::Down);
        chosen.press(Key::PageDown);
        screen(80, 24, &mut chosen);
        assert_eq!(chosen.row, 1, "no further than the last");
        assert_eq!(chosen.key.as_deref(), Some("c:1"));
        // The row changes with the order; the selection does not.
        chosen.order = Order::Rate;
        screen(80, 24, &mut chosen);
        assert_eq!((chosen.row, chosen.key.as_deref()), (0, Some("c:1")));
        chosen.order = Order::Trouble;
        screen(80, 24, &mut chosen);
        assert_eq!(chosen.row, 1);
        chosen.press(Key::Char('s'));
        assert_eq!((chosen.order, chosen.row), (Order::Rate, 0));
        chosen.press(Key::Enter);
        assert!(chosen.detail && chosen.press(Key::Escape));
        assert!(!chosen.detail);
        assert!(!chosen.press(Key::Char('q')));
    }
}
