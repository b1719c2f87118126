//! Relations between settings. A rule about one key is checked where the key is read ([`super::file`]).

use super::reader::Reader;
use super::units::{show_duration, show_size};
use super::{Settings, loki};
use crate::limits::READ_BYTES;

/// So many streams must be able to hold a read and a longest line at once, so that one stuck stream does not hold up
/// the others.
const STREAMS_UNDER_WAY: u64 = 4;

/// Reports every contradiction.
pub(super) fn check(settings: &Settings, reader: &Reader) {
    buffers(settings, reader);
    groups(settings, reader);
    rotation(settings, reader);
    something_to_do(settings, reader);
    own_container(settings, reader);
    if let Some(sink) = &settings.sinks.loki {
        loki::check(settings, sink, reader);
    }
}

fn buffers(settings: &Settings, reader: &Reader) {
    // Each network sink reads apart from the others, within a share of its own.
    let shared = settings.sinks.local_file.is_some() || settings.sinks.stdout;
    let outlets = u64::from(shared) + u64::from(settings.sinks.loki.is_some());
    let least = outlets.max(1) * STREAMS_UNDER_WAY * (READ_BYTES as u64 + settings.line_bytes_max);
    if settings.buffer_bytes_max < least {
        let (is, least, line) =
            (settings.buffer_bytes_max, show_size(least), show_size(settings.line_bytes_max));
        let message = format!(
            "is {}, but must be at least {least} with limits.line_bytes_max at {line}",
            show_size(is)
        );
        reader.problem("limits.buffer_bytes_max", message);
    }
}

/// Buffers and sinks are made for messages of at most `line_bytes_max`, and joined lines are one message.
fn groups(settings: &Settings, reader: &Reader) {
    for (index, pipeline) in settings.pipelines.iter().enumerate() {
        let Some(multiline) = &pipeline.multiline else { continue };
        if multiline.bytes_max > settings.line_bytes_max {
            let (is, most) = (show_size(multiline.bytes_max), show_size(settings.line_bytes_max));
            let message = format!("is {is}, but must be at most limits.line_bytes_max, which is {most}");
            reader.problem(&format!("pipelines[{index}].multiline.bytes_max"), message);
        }
    }
}

fn rotation(settings: &Settings, reader: &Reader) {
    let rotation = &settings.container_monitor.rotation;
    if rotation.idle_interval < rotation.interval {
        let (idle, interval) = (show_duration(rotation.idle_interval), show_duration(rotation.interval));
        let message = format!("is {idle}, but must be at least interval, which is {interval}");
        reader.problem("container_monitor.stream_rotation.idle_interval", message);
    }
}

/// Otherwise the agent would capture what it prints, and print it again.
fn own_container(settings: &Settings, reader: &Reader) {
    let monitor = &settings.container_monitor;
    if monitor.enabled && monitor.include_self && settings.sinks.stdout {
        let message = "is true while sinks.stdout is enabled: in a container the agent would capture its own output, and \
                       each line would come back inside the next, endlessly";
        reader.problem("container_monitor.include_self", message);
    }
}

fn something_to_do(settings: &Settings, reader: &Reader) {
    // Where a file set can't be read, that is the mistake.
    let is_empty = settings.file_monitor.files.is_empty() && !reader.has_problem_in("file_monitor");
    if !settings.container_monitor.enabled && is_empty {
        let message = "is false and file_monitor.files is empty: there is nothing to capture";
        reader.problem("container_monitor.enabled", message);
    }
    if settings.sinks.local_file.is_none() && settings.sinks.loki.is_none() && !settings.sinks.stdout {
        reader.problem(
            "sinks",
            "none is enabled: set enabled of sinks.local_file, sinks.loki or sinks.stdout to true",
        );
    }
}
