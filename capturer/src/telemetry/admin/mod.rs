//! What the agent reports about itself over HTTP: metrics, health, streams, and a page for people. The server only
//! reads. It runs on a thread of its own because its first duty is to answer, and say so, while the capture loop is
//! stuck.

mod access;
mod body;
pub(crate) mod health;
mod hosts;
mod listeners;
mod pages;
mod pieces;
pub(crate) mod server;
mod watchdog;
