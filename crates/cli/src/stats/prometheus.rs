//! A report in Prometheus's text format, version 0.0.4.

use std::fmt::Write as _;

use super::Report;

/// One number: its name, what it means, whether it only grows, and its value.
type Row = (&'static str, &'static str, Kind, fn(&Report) -> u64);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

const ROWS: &[Row] = &[
    (
        "farseek_hits_memory_total",
        "Blocks answered from memory.",
        Kind::Counter,
        |r| r.hits_memory,
    ),
    (
        "farseek_hits_disk_total",
        "Blocks answered from the disk tier.",
        Kind::Counter,
        |r| r.hits_disk,
    ),
    (
        "farseek_joined_total",
        "Blocks that somebody else was fetching already.",
        Kind::Counter,
        |r| r.joined,
    ),
    (
        "farseek_misses_total",
        "Blocks that had to be fetched.",
        Kind::Counter,
        |r| r.misses,
    ),
    (
        "farseek_asked_bytes_total",
        "Bytes that readers asked for.",
        Kind::Counter,
        |r| r.bytes_asked,
    ),
    (
        "farseek_fetched_bytes_total",
        "Bytes that came from repositories.",
        Kind::Counter,
        |r| r.bytes_fetched,
    ),
    (
        "farseek_fetches_total",
        "Requests made, repeated ones included.",
        Kind::Counter,
        |r| r.fetches,
    ),
    (
        "farseek_retries_total",
        "Requests that repeat a failed one.",
        Kind::Counter,
        |r| r.retries,
    ),
    (
        "farseek_errors_total",
        "Fetches that failed for good.",
        Kind::Counter,
        |r| r.errors,
    ),
    (
        "farseek_readahead_bytes_total",
        "Bytes fetched ahead of readers.",
        Kind::Counter,
        |r| r.readahead_bytes,
    ),
    (
        "farseek_readahead_wasted_bytes_total",
        "Bytes fetched ahead that nobody read.",
        Kind::Counter,
        |r| r.readahead_wasted,
    ),
    (
        "farseek_files_ahead_total",
        "Small files fetched ahead of whoever walks the tree.",
        Kind::Counter,
        |r| r.files_ahead,
    ),
    (
        "farseek_files_ahead_wasted_total",
        "Small files fetched ahead that nobody read.",
        Kind::Counter,
        |r| r.files_ahead_wasted,
    ),
    (
        "farseek_opens_passthrough_total",
        "Opens of local files that the kernel reads by itself.",
        Kind::Counter,
        |r| r.opens_passthrough,
    ),
    (
        "farseek_opens_cached_total",
        "Opens of other files.",
        Kind::Counter,
        |r| r.opens_cached,
    ),
    (
        "farseek_promotions_total",
        "Payloads that became payloads of the local repository.",
        Kind::Counter,
        |r| r.promotions,
    ),
    (
        "farseek_promotion_failures_total",
        "Payloads that could not become local.",
        Kind::Counter,
        |r| r.promotion_failures,
    ),
    (
        "farseek_condemned_total",
        "Payloads whose bytes were not those of their digest.",
        Kind::Counter,
        |r| r.condemned,
    ),
    (
        "farseek_disk_written_total",
        "Blocks written to the disk tier.",
        Kind::Counter,
        |r| r.disk.written,
    ),
    (
        "farseek_disk_dropped_total",
        "Blocks that were not written, because the disk could not follow.",
        Kind::Counter,
        |r| r.disk.dropped,
    ),
    (
        "farseek_disk_damaged_total",
        "Blocks of the disk tier whose checksum did not match.",
        Kind::Counter,
        |r| r.disk.damaged,
    ),
    (
        "farseek_disk_evicted_bytes_total",
        "Bytes that this process evicted from the disk tier.",
        Kind::Counter,
        |r| r.disk.evicted_bytes,
    ),
    (
        "farseek_disk_failures_total",
        "Times the disk of the disk tier failed.",
        Kind::Counter,
        |r| r.disk.failures,
    ),
    (
        "farseek_passthrough",
        "1 where the kernel reads local files by itself.",
        Kind::Gauge,
        |r| r.passthrough.into(),
    ),
    (
        "farseek_in_flight_bytes",
        "Bytes on their way now.",
        Kind::Gauge,
        |r| r.bytes_in_flight,
    ),
    (
        "farseek_memory_bytes",
        "Bytes of blocks in memory now.",
        Kind::Gauge,
        |r| r.bytes_cached,
    ),
    (
        "farseek_unwritten_bytes",
        "Bytes of blocks that wait to be written to the disk tier now.",
        Kind::Gauge,
        |r| r.bytes_unwritten,
    ),
];

impl Report {
    /// The report as a monitoring system reads it.
    pub(crate) fn prometheus(&self) -> String {
        let mut text = String::new();
        header(&mut text, "farseek_info", "What serves the mount.", "gauge");
        sample(
            &mut text,
            "farseek_info",
            Some(("version", &self.version)),
            1,
        );
        for (name, help, kind, value) in ROWS {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            header(&mut text, name, help, kind);
            sample(&mut text, name, None, value(self));
        }
        let name = "farseek_source_errors_total";
        header(
            &mut text,
            name,
            "Fetches that failed for good, by repository.",
            "counter",
        );
        for (source, count) in &self.errors_by_source {
            sample(&mut text, name, Some(("source", source)), *count);
        }
        text
    }
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, label: Option<(&str, &str)>, value: u64) {
    let _ = match label {
        None => writeln!(text, "{name} {value}"),
        Some((key, label)) => writeln!(text, "{name}{{{key}=\"{}\"}} {value}", escape(label)),
    };
}

/// A label's value: backslashes, quotes and line feeds are written with a backslash.
fn escape(label: &str) -> String {
    let escaped = label.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}
