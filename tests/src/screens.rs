//! What pictures of the status page and of `capturer top` are taken with: [`host`] a host for the agent, with sources whose
//! names an operator knows, [`browser`] Chromium without a window, and [`terminal`] a terminal of 80 × 24.
//!
//! Nothing here judges what is seen: people do that.

pub mod browser;
pub mod host;
pub mod terminal;
