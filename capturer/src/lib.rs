//! capturer: captures Docker container logs on one io_uring event loop. `ARCHITECTURE.md` beside this crate is the
//! place to begin reading; then agent/turn.rs, capture/core/mod.rs and capture/stream/state.rs.

#![deny(unsafe_code)]

pub mod agent;
pub mod capture;
pub mod commands;
pub mod decode;
#[cfg(feature = "test-faults")]
pub mod faults;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod ledger;
pub mod limits;
pub mod model;
pub mod pipeline;
pub mod settings;
pub mod shell;
pub mod sink;
pub mod telemetry;
pub mod text;
pub mod witness;
