//! capturer: captures Docker container logs on one io_uring event loop. `ARCHITECTURE.md` beside this crate is the
//! place to begin reading; then agent.rs, capture/mod.rs and stream/state.rs.

#![deny(unsafe_code)]

pub mod capture;
pub mod checkpoint;
pub mod clock;
pub mod cursor;
pub mod decode;
pub mod discover;
pub mod docker;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod record;
pub mod ring;
pub mod settings;
pub mod sink;
pub mod status;
pub mod stream;
