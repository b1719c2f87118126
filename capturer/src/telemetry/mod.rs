//! What the agent reports about itself: metrics, status, losses, its own log, and the server that answers requests for
//! them. Every part may report to it; it knows none of the parts that capture or deliver.

pub(crate) mod admin;
pub(crate) mod beat;
pub(crate) mod docker_words;
pub(crate) mod fault;
pub(crate) mod health_text;
pub(crate) mod losses;
pub(crate) mod metrics;
pub(crate) mod own_log;
pub(crate) mod profile;
pub(crate) mod reload_requests;
pub(crate) mod row_words;
pub(crate) mod status;
pub(crate) mod stream_row;
pub(crate) mod taps;
