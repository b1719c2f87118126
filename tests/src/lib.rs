//! The workbench of the whole-agent tests: what several of the files in this folder need, and no test itself.
//!
//! - [`agent`] the agent as its users run it: binary, config file, signals, HTTP
//! - [`engine`] a private, real Docker Engine for one test: started, frozen, restarted, and gone without a trace
//! - [`fake_docker`] a small Engine with fault knobs, for what the real ones can't be made to do
//! - [`scene`] configs, numbered containers, and the comparison with `docker logs`
//! - [`soak`] many containers for minutes or hours, looked at ten times a second
//! - [`sweep`] what such an Engine leaves on a machine and how to take it away (shared with `xtask`)
//! - [`fuse`] a file system that hangs when told to, [`disk`] one that is full
//! - [`loki`] a test Loki with a knob for each fault, and [`loki_limits`] what it takes and in which words it refuses
//! - [`mod@reference`] and [`mod@dashboard`]: files of the tree that are made from the catalog of metrics
//! - [`mod@screens`] what pictures of the status page and of `capturer top` are taken with
//! - [`wait`] the one place where a test waits for something, [`lateness`] how late this machine is
//! - [`skip`] how a test says that it can't run here, [`amount`] how much it does
//! - [`rand`] all chance, from one printed seed
//! - [`walk`] what can happen to log files, an agent and its outputs, in random order, against a model
//! - [`mod@bench`] the shell alone, real or simulated, with a peer that behaves as told
//! - [`world`] a simulated host for the agent's core, [`checker`] what must hold in it, [`seeds`] many of them
//!
//! All but the last four deliberately know nothing of the agent's inside; tests that do say so in their own file.

pub mod agent;
pub mod amount;
pub mod bench;
pub mod checker;
pub mod dashboard;
pub mod disk;
pub mod engine;
pub mod fake_docker;
pub mod fuse;
pub mod gate;
pub mod lateness;
pub mod loki;
pub mod loki_limits;
pub mod rand;
pub mod reference;
pub mod scene;
pub mod screens;
pub mod seeds;
pub mod skip;
pub mod soak;
pub mod sweep;
pub mod wait;
pub mod walk;
pub mod world;
