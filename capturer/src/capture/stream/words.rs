//! What the log says of a failing stream: which source, what happened, and what to do.

use crate::model::record::Source;
use crate::telemetry::metrics::StreamError;

/// It failed and will be tried again, or is paused. A warning if this is new, and only once, however many outlets read
/// the source, since each meets the same fault.
pub(super) fn tell(source: &Source, error: StreamError, is_news: bool, text: &str) {
    let container = source.container.as_ref().map_or("", |container| container.name.as_str());
    let path = source.path.as_deref().unwrap_or_default();
    let (cure, error) = (cure(error), error.as_str());
    if is_news && source.outlet.index == 0 {
        tracing::warn!(container, path, error, "{text}; {cure}");
    } else {
        tracing::debug!(container, path, error, "{text}; {cure}");
    }
}

/// A failure itself loses nothing: the stream continues from its position.
fn cure(error: StreamError) -> &'static str {
    match error {
        StreamError::OpenFailed => "make sure that the agent may read the file, or exclude it",
        StreamError::ReadFailed => "check the disk with dmesg",
        StreamError::PoolFull => {
            "raise container_monitor.stream_rotation.max_concurrent_streams if its lines come too late"
        }
        StreamError::ReadTimeout | StreamError::Stalled | StreamError::RotationStuck => {
            "check dockerd: timeout 5 docker info must answer at once"
        }
        StreamError::ApiError | StreamError::DaemonGone => "see what dockerd says: journalctl -u docker",
        StreamError::DriverUnreadable => "let the container log with json-file, local or journald",
        StreamError::CircuitOpen => "other sources go on",
        StreamError::FileHung => "check that its file system answers",
    }
}
