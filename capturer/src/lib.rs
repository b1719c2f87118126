//! capturer: captures Docker container logs on one io_uring event loop. `ARCHITECTURE.md` beside this crate is the
//! place to begin reading; then agent/turn.rs, capture/mod.rs and stream/state.rs.

#![deny(unsafe_code)]

pub mod admin;
pub mod agent;
pub mod agent_client;
pub mod ask;
pub mod capture;
pub mod checkpoint;
pub mod clock;
pub mod cursor;
pub mod dead_letters;
pub mod decode;
pub mod delivery;
pub mod descriptors;
pub mod desk;
pub mod discover;
pub mod docker;
pub mod doctor;
pub mod encoding;
#[cfg(feature = "test-faults")]
pub mod faults;
pub mod fields;
pub mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod http;
pub mod kin;
pub mod ledger;
pub mod limits;
pub mod losses;
pub mod metrics;
pub mod online;
pub mod own_log;
pub mod path_text;
pub mod pipeline;
pub mod positions;
pub mod privilege;
pub mod probe;
pub mod quickstart;
pub mod record;
pub mod ring;
pub mod settings;
pub mod shell;
pub mod signals;
pub mod sink;
pub mod status;
pub mod stream;
pub mod table;
pub mod tap;
pub mod taps;
pub mod top;
pub mod try_out;
pub mod watches;
pub mod witness;

pub mod label_values;
pub mod level;
pub mod outcome;
pub mod percent;
