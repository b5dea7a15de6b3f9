//! The JSON of records: SPFS's own is read and written again as it stands, and ours has all of it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_object::{Digest, Header};
use farseek_runtime::record::{RuntimeRecord, Runtimes};
use farseek_store::{FsOptions, FsRepository, Repository};
use farseek_testkit::handmade::stored_at;
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use crate::records::record;

/// A repository that SPFS has written; `None`, with a line that says so, where the fixtures are not
/// on this machine. With `CI=true` that is a failure.
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see it"
)]
fn fixture(test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/repo");
    if path.exists() {
        return Some(path);
    }
    let line = format!("LEFT OUT: {test}: it needs {}", path.display());
    let everything = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!everything, "{line}");
    eprintln!("{line}");
    None
}

/// Every field of `value`, by its path.
fn fields(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        fields(value, &path, into);
        into.insert(path);
    }
}

#[tokio::test]
async fn a_record_of_spfs_is_read_and_saved_as_it_is() {
    let test = "a_record_of_spfs_is_read_and_saved_as_it_is";
    let Some(fixture) = fixture(test) else {
        return;
    };
    let repository: Arc<dyn Repository> =
        Arc::new(FsRepository::open(&fixture, FsOptions::default()).unwrap());
    let runtimes = Runtimes::new(Arc::clone(&repository), "user@host", Header::default());
    let found = runtimes.list().await.unwrap();
    assert_eq!(found.len(), 1);
    let durable = runtimes.load("fixture-durable").await.unwrap();
    assert_eq!(durable.name, "fixture-durable");
    assert!(durable.config.durable && durable.farseek.is_none());
    assert_eq!(durable.author.host_name, "vm");
    assert!(durable.created().is_some());

    // Each version of each record that SPFS has ever stored there.
    let mut seen = 0;
    let mut stock = BTreeSet::new();
    let payloads: Vec<Digest> = repository.list_payloads().try_collect().await.unwrap();
    for payload in payloads {
        let text = stored_at(&fixture, "payloads", &payload);
        let Ok(stored) = serde_json::from_slice::<Value>(&std::fs::read(text).unwrap()) else {
            continue;
        };
        if stored.get("author").is_none() {
            continue;
        }
        let read: RuntimeRecord = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), stored);
        fields(&stored, "", &mut stock);
        seen += 1;
    }
    assert!(seen >= 10, "{seen} records");
    let mut ours = BTreeSet::new();
    fields(
        &serde_json::to_value(record("mine")).unwrap(),
        "",
        &mut ours,
    );
    let missing: Vec<_> = stock.difference(&ours).collect();
    assert_eq!(missing, Vec::<&String>::new());
    let more: Vec<_> = ours
        .difference(&stock)
        .filter(|f| !f.starts_with("/farseek"))
        .collect();
    assert_eq!(
        more,
        ["/config/mount_backend"],
        "which an overlay of renders leaves out"
    );
}

#[test]
fn every_field_of_the_format_is_read_and_kept_with_what_is_unknown() {
    let digest = Digest::of(b"x").to_string();
    let stored = json!({
        "name": "n",
        "author": {"user_name": "u", "host_name": "h", "created": "2026-11-22T22:43:54.316882018+01:00",
            "new": 1},
        "status": {"stack": [digest, Digest::NULL.to_string()], "flattened_layers": [digest],
            "editable": true, "running": true, "owner": 1, "monitor": null, "command": ["a", "b c"],
            "new": [2]},
        "config": {"runtime_dir": "/r", "tmpfs_size": "10%", "upper_dir": "/r/u", "lower_dir": "/r/l",
            "work_dir": "/r/w", "ps_startup_file": "/p", "sh_startup_file": "/s",
            "csh_startup_file": "/c", "csh_expect_file": "/dev/null",
            "mount_namespace": "mnt:[1]", "mount_backend": "OverlayFsWithFuse",
            "secondary_repositories": ["file:/a?create=true"], "include_secondary_tags": false,
            "durable": true,
            "live_layers": [{"api": "spfs/v0/livelayer", "contents": [{"src": "/a", "dest": "b"}]}],
            "new": {"deep": null}},
        "new": "kept",
    });
    let record: RuntimeRecord = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), stored);
    assert_eq!(record.other["new"], json!("kept"));

    // What older versions leave out.
    let mut old = stored;
    for field in [
        "ps_startup_file",
        "csh_expect_file",
        "mount_backend",
        "live_layers",
        "durable",
    ] {
        old["config"].as_object_mut().unwrap().remove(field);
    }
    old["status"]
        .as_object_mut()
        .unwrap()
        .remove("flattened_layers");
    let record: RuntimeRecord = serde_json::from_value(old).unwrap();
    assert!(!record.config.durable && record.status.flattened_layers.is_empty());
    assert_eq!(record.config.csh_expect_file, Path::new("/dev/null"));
}

#[test]
fn a_mount_point_is_kept_byte_by_byte() {
    let path = OsString::from_vec(b"/mnt/\xff".to_vec());
    let mut made = record("a");
    made.farseek.as_mut().unwrap().mountpoint = Some(path.clone().into());
    let text = serde_json::to_string(&made).unwrap();
    let read: RuntimeRecord = serde_json::from_str(&text).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.farseek.unwrap().mountpoint.unwrap().as_os_str(), path);
}
