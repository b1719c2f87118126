//! What a config would run, in a few lines for people (`capturer check`). Shows no value that may be secret.

use std::fmt::Write;

use super::units::{show_duration, show_size};
use super::{
    ContainerMonitor, FileFormat, LocalFile, PathPattern, ReadFrom, Select, Settings, StartAt, pipeline,
};
use crate::text::counted::counted;

/// One line per part; `origin` says where the settings come from.
pub(crate) fn summary(settings: &Settings, origin: &str) -> String {
    let mut text = format!("The config is good: {origin}. It would run:\n");
    let mut line = |part: &str, what: &str| {
        // Paths and patterns are the user's text: control characters must not reach the terminal.
        let what: String = what
            .chars()
            .map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() })
            .collect();
        let _ = writeln!(text, "  {part:<11} {what}");
    };
    line("containers", &containers(&settings.container_monitor));
    if settings.container_monitor.enabled {
        line("selected", &selected(&settings.container_monitor.select));
        line("rotation", &rotation(&settings.container_monitor));
    }
    for set in &settings.file_monitor.files {
        let patterns: Vec<&str> = set.paths.iter().map(PathPattern::as_str).collect();
        let format = match set.format {
            FileFormat::Auto => "the format of each line",
            FileFormat::Raw => "each line a message",
            FileFormat::Docker => "json-file records",
            FileFormat::Cri => "container runtimes' records",
        };
        line("files", &format!("{}: {format}, {}", patterns.join(", "), start(set.start_at)));
    }
    for pipeline in &settings.pipelines {
        line("pipeline", &pipeline::show(pipeline));
    }
    if let Some(sink) = &settings.sinks.local_file {
        line("output", &format!("{}; {}", sink.directory.join(sink.file.as_str()).display(), kept(sink)));
    }
    if let Some(sink) = &settings.sinks.loki {
        let spool = show_size(sink.spool.bytes_max);
        line("output", &format!("Loki at {}, with a spool of at most {spool}", super::shown_url(&sink.url)));
    }
    if settings.sinks.stdout {
        line("output", "standard output");
    }
    line("positions", &settings.data_dir.display().to_string());
    line("memory", &memory(settings));
    match settings.admin.listen {
        Some(address) => line("admin", &settings.admin.url(address)),
        None => line("admin", "none: no metrics, no health, no status page"),
    }
    text
}

fn containers(monitor: &ContainerMonitor) -> String {
    if !monitor.enabled {
        return "none".to_owned();
    }
    let mode = match monitor.read_from {
        ReadFrom::Auto => "from their files, else over the API",
        ReadFrom::File => "from their files only",
        ReadFrom::Api => "over the API only",
    };
    format!("of {}, {mode}, {}", monitor.socket_path.display(), start(monitor.start_at))
}

fn start(start_at: StartAt) -> &'static str {
    match start_at {
        StartAt::Beginning => "new ones from their beginning",
        StartAt::End => "new ones from now on",
    }
}

fn selected(select: &Select) -> String {
    let mut rules = Vec::new();
    let lists = [
        ("name", &select.include_names),
        ("image", &select.include_images),
        ("not name", &select.exclude_names),
        ("not image", &select.exclude_images),
    ];
    for (what, patterns) in lists {
        if !patterns.is_empty() {
            let patterns: Vec<&str> = patterns.iter().map(glob::Pattern::as_str).collect();
            rules.push(format!("{what} {}", patterns.join(" or ")));
        }
    }
    for (what, labels) in [("label", &select.include_labels), ("not label", &select.exclude_labels)] {
        rules.extend(labels.iter().map(|(key, pattern)| format!("{what} {key}={pattern}")));
    }
    if rules.is_empty() { "all".to_owned() } else { rules.join("; ") }
}

/// What is kept of each output.
fn kept(sink: &LocalFile) -> String {
    let mut bounds = Vec::new();
    if sink.max_files > 0 {
        bounds.push(counted(sink.max_files as u64, "file"));
    }
    if sink.max_bytes > 0 {
        bounds.push(show_size(sink.max_bytes));
    }
    if !sink.max_age.is_zero() {
        bounds.push(show_duration(sink.max_age));
    }
    let size = (sink.max_size > 0).then(|| format!("up to {} each", show_size(sink.max_size)));
    let time = (!sink.rotate_every.is_zero())
        .then(|| format!("a new one every {}", show_duration(sink.rotate_every)));
    let files: Vec<String> = size.into_iter().chain(time).collect();
    let files = if files.is_empty() { "never rotated".to_owned() } else { files.join(" and ") };
    match bounds.is_empty() {
        true if sink.max_size == 0 && sink.rotate_every.is_zero() => files,
        true => format!("all files are kept, {files}"),
        false => format!("at most {} are kept, {files}", bounds.join(" and at most ")),
    }
}

fn rotation(monitor: &ContainerMonitor) -> String {
    let rotation = &monitor.rotation;
    if !rotation.enabled {
        return format!("none; at most {} connections to the API at once", rotation.max_concurrent_streams);
    }
    let (busy, quiet) = (show_duration(rotation.interval), show_duration(rotation.idle_interval));
    format!(
        "connections to the API are renewed every {busy}, quiet ones every {quiet}; at most {} at once",
        rotation.max_concurrent_streams
    )
}

fn memory(settings: &Settings) -> String {
    let (buffers, line) = (show_size(settings.buffer_bytes_max), show_size(settings.line_bytes_max));
    format!("{buffers} for lines under way; lines longer than {line} are cut")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A golden text: if it changes, so does what users see.
    #[test]
    fn the_defaults() {
        let expected = "\
The config is good: built-in defaults. It would run:
  containers  of /var/run/docker.sock, from their files, else over the API, new ones from their beginning
  selected    all
  rotation    connections to the API are renewed every 5m, quiet ones every 15m; at most 50 at once
  output      ./captured/{container_name}.ndjson; at most 10 files are kept, up to 100.0MiB each
  positions   /var/lib/capturer
  memory      32.0MiB for lines under way; lines longer than 1.0MiB are cut
  admin       http://127.0.0.1:8001/
";
        assert_eq!(summary(&Settings::default(), "built-in defaults"), expected);
    }

    #[test]
    fn what_is_kept_of_an_output() {
        let of = |max_size, max_files, max_bytes, days: u64| {
            let max_age = std::time::Duration::from_secs(days * 86_400);
            kept(&LocalFile { max_size, max_files, max_bytes, max_age, ..LocalFile::default() })
        };
        assert_eq!(of(0, 10, 0, 0), "at most 10 files are kept, never rotated");
        assert_eq!(
            of(1 << 20, 0, 1 << 30, 7),
            "at most 1.0GiB and at most 7days are kept, up to 1.0MiB each"
        );
        assert_eq!(of(1 << 20, 0, 0, 0), "all files are kept, up to 1.0MiB each");
        assert_eq!(of(0, 0, 0, 0), "never rotated");
    }

    #[test]
    fn rules_and_hostile_text() {
        let mut settings = Settings { data_dir: "/a\x1b[2Jb".into(), ..Settings::default() };
        settings.admin.listen = None;
        let select = &mut settings.container_monitor.select;
        select.include_names = vec![glob::Pattern::new("web-*").expect("pattern"), glob::Pattern::default()];
        select.exclude_labels.insert("team".into(), glob::Pattern::new("x").expect("pattern"));
        let text = summary(&settings, "c.yaml");
        assert!(text.contains("  selected    name web-* or ; not label team=x\n"), "{text}");
        assert!(text.contains("  positions   /a\\u{1b}[2Jb\n"), "{text}");
        assert!(text.contains("  admin       none"), "{text}");
    }
}
