//! What the demo measured, for a person and for a script.

use std::time::Duration;

use serde::Serialize;

use crate::size;

/// One thing that was done with the mount.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    /// What was asked.
    pub(super) what: String,
    /// What was answered.
    pub(super) answer: String,
    /// How long it took.
    pub(super) milliseconds: f64,
    /// Requests the server has answered for it.
    pub(super) requests: u64,
    /// Bytes the server has sent for it.
    pub(super) bytes: u64,
}

/// The whole of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// In order.
    pub(super) steps: Vec<Step>,
    /// Files and links that are mounted.
    pub(super) mounted_files: u64,
    /// Their bytes.
    pub(super) mounted_bytes: u64,
}

impl Step {
    /// A step with what it cost.
    pub(super) fn new(
        what: impl Into<String>,
        answer: impl Into<String>,
        took: Duration,
        (requests, bytes): (u64, u64),
    ) -> Self {
        let milliseconds = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        Self {
            what: what.into(),
            answer: answer.into(),
            milliseconds,
            requests,
            bytes,
        }
    }
}

impl Report {
    /// A table and a sentence.
    pub(super) fn lines(&self) -> Vec<String> {
        let width = |text: fn(&Step) -> &str| {
            self.steps
                .iter()
                .map(|step| text(step).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (what, answer) = (width(|step| &step.what), width(|step| &step.answer));
        let row = |step: &Step| {
            format!(
                "  {:what$}  {:answer$}  {:>9}  {:>3} requests  {:>10}",
                step.what,
                step.answer,
                format!("{:.1} ms", step.milliseconds),
                step.requests,
                size::human(step.bytes),
            )
        };
        let mut lines: Vec<String> = self.steps.iter().map(row).collect();
        lines.push(String::new());
        lines.push(self.sentence());
        lines
    }

    fn sentence(&self) -> String {
        let requests: u64 = self.steps.iter().map(|step| step.requests).sum();
        let bytes: u64 = self.steps.iter().map(|step| step.bytes).sum();
        let share = 100.0 * bytes as f64 / self.mounted_bytes.max(1) as f64;
        format!(
            "{} files of {} are mounted and usable; {requests} requests and {} went over the \
             wire: {share:.2} % of it.",
            self.mounted_files,
            size::human(self.mounted_bytes),
            size::human(bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_a_sentence() {
        let took = Duration::from_micros(1234);
        let report = Report {
            steps: vec![
                Step::new("mount", "answers", took, (4, 2048)),
                Step::new("map the file", "0x5a", took, (1, 262_144)),
            ],
            mounted_files: 3,
            mounted_bytes: 1 << 30,
        };
        insta::assert_snapshot!(report.lines().join("\n"), @r#"
          mount         answers     1.2 ms    4 requests     2.0 KiB
          map the file  0x5a        1.2 ms    1 requests   256.0 KiB

        3 files of 1.0 GiB are mounted and usable; 5 requests and 258.0 KiB went over the wire: 0.02 % of it.
        "#);
    }
}
