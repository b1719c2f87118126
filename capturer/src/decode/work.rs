//! Counts how many bytes were looked at, for tests that compare that with the length of the input. Not part of the
//! agent: without tests and feature `fuzz`, counting does nothing.

#[cfg(any(test, feature = "fuzz"))]
thread_local! {
    static BYTES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts this many bytes as looked at.
#[inline(always)]
pub fn add(bytes: usize) {
    #[cfg(any(test, feature = "fuzz"))]
    BYTES.with(|sum| sum.set(sum.get() + bytes as u64));
    #[cfg(not(any(test, feature = "fuzz")))]
    let _ = bytes;
}

/// How many bytes this thread looked at while it ran `what`.
#[cfg(any(test, feature = "fuzz"))]
pub fn of(what: impl FnOnce()) -> u64 {
    let before = BYTES.with(std::cell::Cell::get);
    what();
    BYTES.with(std::cell::Cell::get) - before
}
