//! How far a long operation is, for a person: a bar on a terminal, plain lines otherwise.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use farseek_store::CommitProgress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::note;
use crate::size;

/// How often a plain line is written: often enough to see life, seldom enough for a log.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

const BAR: &str = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// The progress of a commit, on the standard error.
pub(crate) enum Progress {
    /// A bar.
    Bar(ProgressBar),
    /// Lines.
    Plain(Mutex<Plain>),
}

/// What the plain lines are made of.
#[derive(Debug)]
pub(crate) struct Plain {
    what: String,
    total_files: u64,
    total_bytes: u64,
    files: u64,
    bytes: u64,
    told: Instant,
}

impl Progress {
    /// Progress of `what`, such as "committing /x".
    pub(crate) fn new(what: String, terminal: bool) -> Self {
        if !terminal {
            let told = Instant::now();
            let (total_files, total_bytes, files, bytes) = (0, 0, 0, 0);
            return Self::Plain(Mutex::new(Plain {
                what,
                total_files,
                total_bytes,
                files,
                bytes,
                told,
            }));
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self::Bar(bar)
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl CommitProgress for Progress {
    fn found(&self, files: u64, bytes: u64) {
        match self {
            Self::Bar(bar) => bar.set_length(bytes),
            Self::Plain(plain) => {
                let mut plain = plain.lock().expect("nothing panics while it is held");
                plain.total_files = files;
                plain.total_bytes = bytes;
            }
        }
    }

    fn stored(&self, files: u64, bytes: u64) {
        match self {
            Self::Bar(bar) => bar.inc(bytes),
            Self::Plain(plain) => {
                let mut plain = plain.lock().expect("nothing panics while it is held");
                if let Some(line) = plain.advance(files, bytes, Instant::now()) {
                    note(line);
                }
            }
        }
    }
}

impl Plain {
    /// Counts, and gives a line when it is time for one.
    fn advance(&mut self, files: u64, bytes: u64, now: Instant) -> Option<String> {
        self.files += files;
        self.bytes += bytes;
        if now.duration_since(self.told) < PLAIN_EVERY {
            return None;
        }
        self.told = now;
        let Self {
            what,
            total_files,
            total_bytes,
            files,
            bytes,
            ..
        } = self;
        let (bytes, total) = (size::human(*bytes), size::human(*total_bytes));
        Some(format!(
            "{what}: {files} of {total_files} files, {bytes} of {total}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_comes_now_and_then() {
        let start = Instant::now();
        let mut plain = Plain {
            what: "committing x".into(),
            total_files: 10,
            total_bytes: 4096,
            files: 0,
            bytes: 0,
            told: start,
        };
        assert_eq!(plain.advance(1, 1024, start + PLAIN_EVERY / 2), None);
        let line = plain.advance(2, 1024, start + PLAIN_EVERY);
        assert_eq!(
            line.unwrap(),
            "committing x: 3 of 10 files, 2.0 KiB of 4.0 KiB"
        );
        assert_eq!(plain.advance(1, 1, start + PLAIN_EVERY), None);
    }
}
