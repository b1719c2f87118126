//! The commands other than `run`, one file each, and what they share: arguments (`cli.rs`) and an HTTP client (`http.rs`)
//! with which they ask a running agent (`agent_client.rs`) and an Engine (`ask.rs`).

pub(crate) mod agent_client;
pub(crate) mod ask;
pub(crate) mod cli;
mod colours;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
mod http;
pub(crate) mod online;
pub(crate) mod positions;
pub(crate) mod program;
pub(crate) mod quickstart;
mod running;
pub(crate) mod tap;
pub(crate) mod top;
pub(crate) mod tried_dir;
pub(crate) mod try_out;
