//! The standard output: the one place that prints.
//!
//! Results go to the standard output, everything else to the standard error. A reader that goes
//! away (`farseek ls x | head`) ends the command quietly.

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

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<()> {
        writeln!(self.stdout, "{line}").or_else(told)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stdout.write_all(bytes).or_else(told)
    }

    /// Writes a value as JSON, indented, and a line feed.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).context("the answer cannot be JSON")?;
        self.line(text)
    }

    /// Shows everything written so far.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.stdout.flush().or_else(told)
    }
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
