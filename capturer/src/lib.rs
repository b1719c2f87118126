//! capturer: captures Docker container logs on one io_uring event loop. `ARCHITECTURE.md` beside this crate is the
//! place to begin reading; then agent/turn.rs, capture/core/mod.rs and capture/stream/state.rs.

#![deny(unsafe_code)]

mod agent;
mod capture;
mod commands;
mod decode;
#[cfg(feature = "test-faults")]
mod faults;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod ledger;
mod limits;
mod model;
mod pipeline;
mod settings;
mod shell;
mod sink;
mod telemetry;
#[doc(hidden)]
pub mod testing;
mod text;
mod witness;

pub use commands::program::main;
