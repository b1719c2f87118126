//! What the agent tells about itself over HTTP: metrics, health, streams, and a page for people. It only reads; it
//! runs on a thread of its own because its first duty is to answer while the capture loop is stuck, and to say so.

mod access;
mod body;
pub(crate) mod health;
mod hosts;
mod listeners;
mod pages;
mod pieces;
pub(crate) mod server;
mod watchdog;
