//! Standard output of the commands. It remembers the first error, so that a command that could not print all of its
//! answer never ends as if it had: on a full disk an empty report looks like a good one.
//!
//! Commands go on after an error and need not look at it; program.rs asks once, at the end. Not for `run`, whose sink
//! `stdout` has health of its own.

use std::io::{self, Stdout, Write};
use std::sync::OnceLock;

static FIRST: OnceLock<io::Error> = OnceLock::new();

/// Standard output.
pub fn stdout() -> Output<'static, Stdout> {
    Output { to: io::stdout(), first: &FIRST }
}

/// Writes out what is left, and returns why not all of the output was written. A reader that closed the pipe (`| head`)
/// has seen enough.
pub fn trouble() -> Option<&'static io::Error> {
    let _ = stdout().flush();
    FIRST.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// A writer that remembers its first error.
#[derive(Debug)]
pub struct Output<'a, W> {
    to: W,
    first: &'a OnceLock<io::Error>,
}

impl<W> Output<'_, W> {
    fn remember<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Errors can't be cloned; the number says all that the system said.
            let number = error.raw_os_error();
            let copy = number.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            let _ = self.first.set(copy);
        }
        result
    }
}

impl<W: Write> Write for Output<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.to.write(bytes);
        self.remember(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.flush();
        self.remember(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many writes, then fails with this number.
    struct Full(usize, i32);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(self.1))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(5))
        }
    }

    #[test]
    fn the_first_error_stays() {
        let first = OnceLock::new();
        let mut out = Output { to: Full(1, 28), first: &first };
        out.write_all(b"taken").unwrap();
        assert!(first.get().is_none());
        let _ = out.write_all(b"not taken");
        let _ = out.flush();
        assert_eq!(first.get().and_then(io::Error::raw_os_error), Some(28), "not the error of the flush");
        // A signal is no fault: the write is done again.
        let first = OnceLock::new();
        assert!(Output { to: Full(0, 4), first: &first }.write(b"x").is_err());
        assert!(first.get().is_none());
    }
}
