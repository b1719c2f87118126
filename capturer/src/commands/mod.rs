//! The commands other than `run`, one file each, and what they share: arguments (`cli.rs`) and the client of a running
//! agent (`agent_client.rs`).

pub(crate) mod agent_client;
pub(crate) mod ask;
pub(crate) mod cli;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod online;
pub(crate) mod positions;
pub(crate) mod program;
pub(crate) mod quickstart;
mod running;
pub(crate) mod tap;
pub(crate) mod top;
pub(crate) mod tried_dir;
pub(crate) mod try_out;
