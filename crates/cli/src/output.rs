//! The standard output: the one place that prints.
//!
//! Results go to the standard output, everything else to the standard error. A reader that goes
//! away (`farseek ls x | head`) ends the command quietly. Names may hold anything: in lines for
//! people control characters are escaped, so that a terminal obeys none and a line is a line; JSON
//! has them exactly.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::exit::OutputClosed;

/// Buffered standard output. What was written appears when it is [finished](Self::finish).
pub(crate) struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// The process's standard output.
    pub(crate) fn stdout() -> Self {
        Self {
            stdout: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        }
    }

    /// Writes one line, whatever is in the names it holds.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<()> {
        let line = line.to_string();
        writeln!(self.stdout, "{}", harmless(&line)).or_else(told)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stdout.write_all(bytes).or_else(told)
    }

    /// Writes a value as JSON, indented, and a line feed.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        // As it is made, for it may be of any length. JSON has escapes of its own.
        match serde_json::to_writer_pretty(&mut self.stdout, value) {
            Err(error) if error.is_io() => told(error.into()),
            written => written.context("the answer cannot be JSON"),
        }?;
        writeln!(self.stdout).or_else(told)
    }

    /// Shows everything written so far.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.stdout.flush().or_else(told)
    }
}

/// `text` with its control characters as C writes them: `\n`, `\x1b`.
fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => escaped.extend(c.escape_default()),
            c if c.is_control() => escaped.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

fn told(error: io::Error) -> Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Err(OutputClosed.into());
    }
    Err(error).context("cannot write to the standard output")
}

/// Writes a line for a person to the standard error; a closed one is nobody's loss.
pub(crate) fn note(line: impl Display) {
    writeln!(io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_given_nothing_to_obey() {
        let table = [
            ("plain name ö \\ '", "plain name ö \\ '"),
            ("two\nlines\tand\r", r"two\nlines\tand\r"),
            ("\x1b[2Jgone\x07", r"\x1b[2Jgone\x07"),
            ("\0\x7f\u{9b}", r"\x00\x7f\x9b"),
        ];
        for (text, expected) in table {
            assert_eq!(harmless(text), expected);
        }
    }
}
