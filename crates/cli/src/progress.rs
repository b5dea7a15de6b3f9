//! How far a long operation is, for a person: a bar on a terminal, plain lines otherwise.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::note;
use crate::size;

/// How often a plain line is written: often enough to see life, seldom enough for a log.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

const BAR: &str = "{msg}: {prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// The progress of a commit, a copy or a check, on the standard error.
pub(crate) struct Progress {
    counts: Mutex<Counts>,
    /// On a terminal.
    bar: Option<ProgressBar>,
}

/// What is shown.
#[derive(Debug)]
struct Counts {
    what: String,
    /// What is counted, in the plural.
    unit: &'static str,
    total_items: u64,
    total_bytes: u64,
    items: u64,
    bytes: u64,
    told: Instant,
}

impl Progress {
    /// Progress of `what`, such as "committing /x", which goes through so many `unit`s: "files".
    pub(crate) fn new(what: String, unit: &'static str, terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style);
            }
            bar.set_message(what.clone());
            bar
        });
        let told = Instant::now();
        let (total_items, total_bytes, items, bytes) = (0, 0, 0, 0);
        let counts = Mutex::new(Counts {
            what,
            unit,
            total_items,
            total_bytes,
            items,
            bytes,
            told,
        });
        Self { counts, bar }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nothing panics while it is held")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl farseek_store::Progress for Progress {
    fn found(&self, items: u64, bytes: u64) {
        let mut counts = self.counts();
        (counts.total_items, counts.total_bytes) = (items, bytes);
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            bar.set_prefix(counts.in_items());
        }
    }

    fn stored(&self, items: u64, bytes: u64) {
        let mut counts = self.counts();
        let line = counts.advance(items, bytes, Instant::now());
        match &self.bar {
            Some(bar) => {
                bar.inc(bytes);
                if items > 0 {
                    bar.set_prefix(counts.in_items());
                }
            }
            None => line.into_iter().for_each(note),
        }
    }
}

impl Counts {
    fn in_items(&self) -> String {
        let Self {
            unit,
            total_items,
            items,
            ..
        } = self;
        format!("{items} of {total_items} {unit}")
    }

    /// Counts, and gives a line when it is time for one.
    fn advance(&mut self, items: u64, bytes: u64, now: Instant) -> Option<String> {
        self.items += items;
        self.bytes += bytes;
        if now.duration_since(self.told) < PLAIN_EVERY {
            return None;
        }
        self.told = now;
        let (items, what) = (self.in_items(), &self.what);
        let (bytes, total) = (size::human(self.bytes), size::human(self.total_bytes));
        Some(format!("{what}: {items}, {bytes} of {total}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_comes_now_and_then() {
        let start = Instant::now();
        let mut plain = Counts {
            what: "committing x".into(),
            unit: "files",
            total_items: 10,
            total_bytes: 4096,
            items: 0,
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
