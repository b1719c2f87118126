//! stdout
