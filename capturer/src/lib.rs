//! capturer: captures Docker container logs on one io_uring event loop. `ARCHITECTURE.md` beside this crate is the
//! place to begin reading; then agent.rs, capture/mod.rs and stream/state.rs.

#![deny(unsafe_code)]

pub mod admin;
pub mod clock;
pub mod cursor;
pub mod limits;
pub mod metrics;
pub mod own_log;
pub mod record;
pub mod settings;
pub mod sink;
pub mod status;
