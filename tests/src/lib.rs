//! The workbench of the whole-agent tests: what several of the files in this folder need, and no test itself.
//!
//! - [`agent`] the agent as its users run it: binary, config file, signals, HTTP
//! - [`engine`] a private, real Docker Engine for one test: started, frozen, restarted, and gone without a trace
//! - [`scene`] configs, numbered containers, and the comparison with `docker logs`
//! - [`sweep`] what such an Engine leaves on a machine and how to take it away (shared with `xtask`)
//! - [`wait`] the one place where a test waits for something
//! - [`rand`] all chance, from one printed seed
//! - [`world`] a simulated host for the agent's core, and [`checker`] what must hold in it
//!
//! All but the last two deliberately know nothing of the agent's inside; tests that do say so in their own file.

pub mod agent;
pub mod checker;
pub mod engine;
pub mod rand;
pub mod scene;
pub mod sweep;
pub mod wait;
pub mod world;
