//! The commands beside `run`, one file each, and what they share: arguments (`cli.rs`) and the client that asks a running
//! agent (`agent_client.rs`).

pub(crate) mod agent_client;
pub(crate) mod ask;
pub mod cli;
pub mod dead_letters;
pub mod doctor;
pub mod online;
pub mod positions;
pub mod quickstart;
pub mod tap;
pub mod top;
pub mod try_out;
