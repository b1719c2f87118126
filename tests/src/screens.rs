//! Parts for pictures of the status page and of `capturer top`: [`host`] a host for the agent, with sources whose names
//! an operator knows, [`browser`] Chromium without a window, and [`terminal`] a terminal of 80 × 24.
//!
//! Nothing here judges the pictures: people do that.

pub mod browser;
pub mod host;
pub mod terminal;
