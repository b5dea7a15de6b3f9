//! A report in each of its forms.

use super::*;

fn report() -> Report {
    Report {
        version: "1.2.3".into(),
        pid: 42,
        passthrough: true,
        opens_passthrough: 12,
        opens_cached: 34,
        files_ahead: 56,
        files_ahead_wasted: 7,
        hits_memory: 900,
        hits_disk: 50,
        joined: 10,
        misses: 40,
        bytes_asked: 100 << 20,
        bytes_fetched: 10 << 20,
        fetches: 25,
        retries: 2,
        errors: 3,
        errors_by_source: [("http://a/".into(), 2), ("say \"b\"\\".into(), 1)].into(),
        readahead_bytes: 8 << 20,
        readahead_wasted: 1 << 20,
        bytes_in_flight: 4096,
        bytes_cached: 64 << 20,
        bytes_unwritten: 512 << 10,
        promotions: 7,
        promotion_failures: 1,
        condemned: 0,
        disk: DiskReport {
            written: 40,
            dropped: 2,
            damaged: 1,
            evicted_bytes: 2 << 20,
            failures: 0,
        },
        slowest: vec![SlowFetch {
            digest: "ABCDEFGHIJKLMNOP".into(),
            location: "http://a/".into(),
            millis: 1234,
            bytes: 262_144,
        }],
        requests: Some(RequestReport {
            get: 20,
            list: 3,
            total: 23,
            ..RequestReport::default()
        }),
    }
}

#[test]
fn a_person_sees_a_few_lines() {
    insta::assert_snapshot!(report().lines().join("\n"), @r#"
      hits       900 blocks from memory, 50 from the disk: 95.0 %
      misses     40 blocks fetched, 10 waited for a fetch of others
      bytes      100.0 MiB asked for, 10.0 MiB fetched: 0.10 times
      requests   25 made, 2 of them repeated; 3 fetches failed
      now        4.0 KiB in flight, 64.0 MiB of blocks in memory, 512.0 KiB wait for the disk
      readahead  8.0 MiB fetched ahead, 1.0 MiB of it for nothing; 56 small files, 7 of them for nothing
      opens      12 of local files, read by the kernel itself; 34 of others
      disk       40 blocks written, 2 dropped, 2.0 MiB evicted, 1 blocks damaged, 0 failures
      local      7 files became local, 1 could not; 0 were condemned
      errors     2 from http://a/
                 1 from say "b"\
      slowest    1234 ms  256.0 KiB of ABCDEFGHIJ from http://a/
    "#);
}

#[test]
fn nothing_read_yet_is_no_division_by_zero() {
    assert_eq!(Report::default().amplification(), None);
    assert_eq!(report().amplification(), Some(0.1));
    assert_eq!(Report::default().lines().len(), 9);
}

#[test]
fn it_survives_its_travel_and_the_meeting_with_another_version() {
    let text = serde_json::to_string(&report()).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    let other: Report = serde_json::from_str(r#"{"misses": 3, "from_the_future": []}"#).unwrap();
    assert_eq!((other.misses, other.hits_disk), (3, 0));
}

#[test]
fn it_fits_an_extended_attribute_whatever_happened() {
    let slow = SlowFetch {
        location: "x".repeat(300),
        ..SlowFetch::default()
    };
    let full = Report {
        slowest: vec![slow; 1000],
        errors_by_source: (0..1000).map(|n| (format!("{n:0300}"), n)).collect(),
        ..report()
    };
    let total: u64 = full.errors_by_source.values().sum();
    let short = full.shortened();
    assert!(serde_json::to_string(&short).unwrap().len() < 64 << 10);
    assert_eq!(short.errors_by_source.values().sum::<u64>(), total);
    assert_eq!(short.errors_by_source[&format!("{:0300}", 999)], 999);
}

/// Reads Prometheus's text format, strictly.
fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut samples = BTreeMap::new();
    let (mut helped, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        let wrong = || format!("wrong line: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(wrong)?;
            if help.is_empty() || helped.insert(name.to_owned(), ()).is_some() {
                return Err(wrong());
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(wrong)?;
            let known = matches!(kind, "counter" | "gauge");
            let new = kinds.insert(name.to_owned(), kind.to_owned()).is_none();
            if !known || !new || (kind == "counter") != name.ends_with("_total") {
                return Err(wrong());
            }
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or_else(wrong)?;
            let name = series.split('{').next().ok_or_else(wrong)?;
            let named = |c: char| c.is_ascii_lowercase() || c == '_';
            let known = helped.contains_key(name) && kinds.contains_key(name);
            if !known || !name.starts_with("farseek_") || !name.chars().all(named) {
                return Err(wrong());
            }
            let value = value.parse().map_err(|_| wrong())?;
            if samples.insert(series.to_owned(), value).is_some() {
                return Err(wrong());
            }
        }
    }
    text.ends_with('\n')
        .then_some(samples)
        .ok_or("the last line is torn".into())
}

#[test]
fn a_monitoring_system_can_read_it() {
    let samples = parse(&report().prometheus()).unwrap();
    let table = [
        ("farseek_info{version=\"1.2.3\"}", 1.0),
        ("farseek_hits_memory_total", 900.0),
        ("farseek_hits_disk_total", 50.0),
        ("farseek_asked_bytes_total", 104_857_600.0),
        ("farseek_in_flight_bytes", 4096.0),
        ("farseek_disk_evicted_bytes_total", 2_097_152.0),
        ("farseek_source_errors_total{source=\"http://a/\"}", 2.0),
        (
            "farseek_source_errors_total{source=\"say \\\"b\\\"\\\\\"}",
            1.0,
        ),
    ];
    for (series, value) in table {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    assert_eq!(samples.len(), 27 + 1 + 2);
}
