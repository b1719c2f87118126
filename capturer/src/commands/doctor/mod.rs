//! `capturer doctor`: whether the agent can run here, how well, and what would make it run better.
//!
//! ```text
//! machine ─gather─▶ Facts ─judge (pure)─▶ Lines ─show (pure)─▶ a table for people, or JSON for scripts
//! ```
//! It changes nothing. Not here: whether the config is good (settings), and whether a sink's server can be reached.

mod facts;
mod gather;
mod judge;
mod show;

use std::io::{IsTerminal as _, Write};

use crate::commands::cli::{DoctorArgs, Exit};
use crate::commands::colours;

/// Looks, prints a line for each check, and returns how `run` would end.
pub fn run(arguments: &DoctorArgs, out: &mut dyn Write) -> Exit {
    let lines = judge::judge(&gather::gather(&arguments.config));
    let exit = judge::exit(&lines);
    let text = if arguments.json {
        show::json(&lines, exit)
    } else {
        let terminal = std::io::stdout();
        let is_terminal = terminal.is_terminal();
        let columns = rustix::termios::tcgetwinsize(&terminal).map_or(0, |size| size.ws_col.into());
        let columns = if is_terminal { columns } else { 0 };
        show::table(&lines, exit, columns, colours::are_wanted(is_terminal))
    };
    // Standard output remembers its errors (text/output.rs).
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    exit
}
