//! Time as the pure parts see it: a value that comes in as an argument. Only agent/turn.rs reads the clocks.

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic milliseconds since the process (or simulation) began: for deadlines and ages.
    pub mono_ms: u64,
    /// Nanoseconds since 1970 by the wall clock: for what people read. May jump.
    pub unix_ns: i64,
}
