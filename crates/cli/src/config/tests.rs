//! Layers over one another, from a made-up environment and files in a temporary directory.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::exit;

/// A host with its `/etc` and a home.
struct Host {
    root: TempDir,
    environment: Environment,
}

impl Host {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let environment = Environment {
            etc: root.path().join("etc"),
            home: Some(root.path().join("home")),
            user: "me".into(),
            host: "here".into(),
            cpus: 4,
            ..Environment::default()
        };
        Self { root, environment }
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.variables.insert(name.into(), value.into());
        self
    }

    fn home(&self, path: &str) -> PathBuf {
        self.root.path().join("home").join(path)
    }

    fn load(&self) -> Config {
        Config::load(&self.environment).unwrap()
    }

    fn error(&self) -> String {
        let error = Config::load(&self.environment).unwrap_err();
        exit::message(&error).replace(&*self.root.path().to_string_lossy(), "")
    }
}

#[test]
fn nothing_configured_is_where_spfs_keeps_things() {
    let host = Host::new();
    let config = host.load();
    assert_eq!(config.storage.root, host.home(".local/share/spfs"));
    assert_eq!(config.signature(), "me@here");
    assert_eq!(config.fuse.worker_threads, 4);
    assert_eq!(config.fuse.blob_cache_max_bytes, 268_435_456);
    assert_eq!(config.reader.stall_seconds, 30);
    assert!(config.filesystem.secondary_repositories.is_empty());
}

#[test]
fn without_a_home_the_repository_is_in_tmp() {
    let mut host = Host::new();
    host.environment.home = None;
    assert_eq!(host.load().storage.root, PathBuf::from("/tmp/spfs"));
}

#[test]
fn each_layer_lies_over_the_one_before() {
    let layers: &[(&str, &str, &str)] = &[
        ("etc/spfs.conf", "[storage]\nroot = /1\n", "/1"),
        ("etc/spfs.toml", "[storage]\nroot = '/2'\n", "/2"),
        ("home/.config/spfs/spfs.conf", "[storage]\nroot=/3\n", "/3"),
        (
            "home/.config/spfs/spfs.yaml",
            "storage:\n  root: /4\n",
            "/4",
        ),
        ("", "SPFS_STORAGE__ROOT=/5", "/5"),
        ("", "SPFS_STORAGE_ROOT=/6", "/6"),
        ("etc/farseek.toml", "storage.root = '/7'", "/7"),
        (
            "home/.config/farseek/farseek.toml",
            "[storage]\nroot = '/8'",
            "/8",
        ),
        ("", "FARSEEK_STORAGE_ROOT=/9", "/9"),
    ];
    let mut host = Host::new();
    for (file, text, expected) in layers {
        host = match (*file, text.split_once('=')) {
            ("", Some((name, value))) => host.variable(name, value),
            (file, _) => host.file(file, text),
        };
        assert_eq!(
            host.load().storage.root,
            PathBuf::from(expected),
            "{file} {text}"
        );
    }
}

#[test]
fn every_form_of_spfs_file_is_read() {
    let forms = [
        ("spfs.toml", "[remote.origin]\naddress = 'http://h/'\n"),
        ("spfs.yaml", "remote:\n  origin:\n    address: http://h/\n"),
        ("spfs.yml", "remote:\n  origin:\n    address: http://h/\n"),
        (
            "spfs.json",
            r#"{"remote": {"origin": {"address": "http://h/"}}}"#,
        ),
        ("spfs.ini", "[remote.origin]\naddress = http://h/\n"),
        ("spfs.conf", "[remote.origin]\naddress = http://h/\n"),
    ];
    for (name, text) in forms {
        let host = Host::new().file(&format!("etc/{name}"), text);
        let config = host.load();
        let address = config.remote["origin"].address("origin").unwrap();
        assert_eq!(address, "http://h/", "{name}");
        assert_eq!(
            config.filesystem.secondary_repositories,
            ["origin"],
            "{name}"
        );
    }
}

#[test]
fn text_becomes_the_kind_a_key_holds() {
    let host = Host::new()
        .variable("SPFS_FUSE__WORKER_THREADS", "3")
        .variable("SPFS_FUSE__INCLUDE_SECONDARY_TAGS", "false")
        .variable("SPFS_STORAGE__DIGEST_STRATEGY", "legacy")
        .variable("FARSEEK_READER__BLOCK_SIZE", "64K")
        .variable("FARSEEK_READER_STALL_SECONDS", "5")
        .variable("FARSEEK_FILESYSTEM_SECONDARY_REPOSITORIES", "a, /b")
        .variable("FARSEEK_REMOTE_MY_PLACE_ADDRESS", "/x/y")
        .variable("FARSEEK_LOG", "debug");
    let config = host.load();
    assert_eq!(config.fuse.worker_threads, 3);
    assert!(!config.fuse.include_secondary_tags);
    assert_eq!(config.storage.digest_strategy, StrategyName::Legacy);
    assert_eq!(config.reader.block_size, 65536);
    assert_eq!(config.reader.stall_seconds, 5);
    assert_eq!(config.filesystem.secondary_repositories, ["a", "/b"]);
    assert_eq!(
        config.remote["my_place"].address("my_place").unwrap(),
        "/x/y"
    );
    assert_eq!(config.log.filter.as_deref(), Some("debug"));
}

#[test]
fn a_tilde_is_the_home() {
    let host = Host::new().variable("SPFS_STORAGE_ROOT", "~/repo").file(
        "etc/farseek.toml",
        "[remote.near]\nscheme = 'fs'\npath = '~/near'\n[log]\nfile = '~/log'",
    );
    let config = host.load();
    assert_eq!(config.storage.root, host.home("repo"));
    assert_eq!(config.log.file, Some(host.home("log")));
    let expected = format!("file:{}", host.home("near").display());
    assert_eq!(config.remote["near"].address("near").unwrap(), expected);
}

#[test]
fn what_spfs_alone_knows_is_ignored_in_its_layers() {
    let host = Host::new()
        .file(
            "etc/spfs.toml",
            "[sentry]\ndsn = 'x'\n[filesystem]\nbackend = 'FuseOnly'\n",
        )
        .variable("SPFS_RUNTIME", "abc")
        .variable("SPFS_LOG", "debug")
        .variable("SPFS_LOG_FORMAT", "x")
        .variable("SPFS_SHELL_MESSAGE", "hello");
    assert_eq!(host.load().log.filter, None);
}

#[test]
fn the_name_of_a_remote_may_hold_dots() {
    let host = Host::new()
        .file(
            "etc/spfs.toml",
            "[remote.'near.example']\naddress = 'http://n/'\n",
        )
        .file(
            "etc/farseek.toml",
            "[remote.'packages.example']\naddress = 'http://p/'\n\
             [filesystem]\nsecondary_repositories = ['packages.example']\n",
        )
        .variable("SPFS_REMOTE_A_B_ADDRESS", "http://ignored/")
        .variable("FARSEEK_REMOTE__OTHER__ADDRESS", "http://o/");
    let config = host.load();
    let names: Vec<_> = config.remote.keys().map(String::as_str).collect();
    assert_eq!(names, ["near.example", "other", "packages.example"]);
    let address = config.remote["packages.example"].address("packages.example");
    assert_eq!(address.unwrap(), "http://p/");
}

#[test]
fn caches_are_configured_as_operators_of_spfs_expect() {
    let host = Host::new()
        .file(
            "etc/spfs.toml",
            "[fuse]\nblob_cache_max_bytes = 1000\nblob_cache_max_single_bytes = '1MiB'\n",
        )
        .file(
            "etc/farseek.toml",
            "[cache]\ndirectory = '~/blocks'\ndisk_cache_max_bytes = '2GiB'\n\
             disk_cache_keep_free = 10\n[reader]\nverify = 'Strict'\npromote = 'on-seek'\n",
        )
        .variable("SPFS_FUSE__BLOB_CACHE_MAX_BYTES", "64MiB")
        .variable("FARSEEK_READER_READAHEAD_MAX_BYTES", "0")
        .variable("FARSEEK_CACHE_DISK_CACHE_KEEP_FREE", "20%");
    let config = host.load();
    assert_eq!(config.fuse.blob_cache_max_bytes, 64 << 20);
    assert_eq!(config.fuse.blob_cache_max_single_bytes, 1 << 20);
    assert_eq!(config.cache.place(), Some(&*host.home("blocks")));
    assert_eq!(config.cache.disk_cache_max_bytes, 2 << 30);
    assert_eq!(config.cache.disk_cache_keep_free, Percent(20));
    assert_eq!(config.reader.verify, VerifyName::Strict);
    assert_eq!(config.reader.promote, PromoteName::OnSeek);
    assert_eq!(config.reader.readahead_max_bytes, 0);
}

#[test]
fn the_disk_tier_is_where_caches_are_or_nowhere() {
    let place = |host: &Host| host.load().cache.place().map(PathBuf::from);
    let mut host = Host::new();
    assert_eq!(place(&host), Some(host.home(".cache/farseek")));
    host = host.variable("XDG_CACHE_HOME", "/caches");
    assert_eq!(place(&host), Some("/caches/farseek".into()));
    let off = Host::new().variable("FARSEEK_CACHE_ENABLED", "off");
    assert_eq!(place(&off), None);
    let none = Host::new().variable("FARSEEK_CACHE_DISK_CACHE_MAX_BYTES", "0");
    assert_eq!(place(&none), None);
    host = Host::new();
    host.environment.home = None;
    assert_eq!(place(&host), None);
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../../docs/CONFIGURATION.md");
    let default = serde_json::to_value(Config::default_for(&Environment::default())).unwrap();
    for (key, _) in keys::flatten(&default) {
        // An empty table of remotes has no keys of its own.
        assert!(
            page.contains(&format!("`{key}`")),
            "{key} is not in docs/CONFIGURATION.md"
        );
    }
}

#[test]
fn a_mistake_is_told_with_its_place_and_the_nearest_key() {
    let table = [
        (
            Host::new().file("etc/farseek.toml", "[reader]\nstall_second = 3"),
            "/etc/farseek.toml: unknown key 'reader.stall_second': \
             did you mean 'reader.stall_seconds'?",
        ),
        (
            Host::new().file(
                "home/.config/farseek/farseek.toml",
                "[storage]\nstall_seconds = 3",
            ),
            "/home/.config/farseek/farseek.toml: unknown key 'storage.stall_seconds': \
             did you mean 'reader.stall_seconds'?",
        ),
        (
            Host::new().file("etc/farseek.toml", "[remote.origin]\nadress = 'x'"),
            "/etc/farseek.toml: unknown key 'remote.origin.adress': \
             did you mean 'remote.origin.address'?",
        ),
        (
            Host::new().file("etc/farseek.toml", "[reeder]"),
            "/etc/farseek.toml: unknown key 'reeder': did you mean 'reader'?",
        ),
        (
            Host::new().variable("FARSEEK_STORAGE_ROOTS", "/x"),
            "the environment variable FARSEEK_STORAGE_ROOTS names no known key: \
             did you mean FARSEEK_STORAGE__ROOT?",
        ),
        (
            Host::new().file("etc/farseek.toml", "[reader]\nstall_seconds = 'soon'"),
            "/etc/farseek.toml: the value of 'reader.stall_seconds' is not valid: \
             invalid type: string \"soon\", expected u64",
        ),
        (
            Host::new().file("etc/farseek.toml", "[cache]\ndisk_cache_keep_free = '200%'"),
            "/etc/farseek.toml: the value of 'cache.disk_cache_keep_free' is not valid: \
             '200%' is not a share: write 0% to 100%",
        ),
        (
            Host::new().variable("FARSEEK_READER_PROMOTE", "later"),
            "the FARSEEK_* environment variables: the value of 'reader.promote' is not valid: \
             'later' is none of complete, on-seek, never",
        ),
        (
            Host::new().variable("SPFS_STORAGE__ENCODING_FORMAT", "xml"),
            "the SPFS_* environment variables: the value of 'storage.encoding_format' is not \
             valid: 'xml' is none of Legacy, FlatBuffers",
        ),
        (
            Host::new().variable("FARSEEK_READER_BLOCK_SIZE", "3000"),
            "reader.block_size is 3000: it must be a power of two from 4 KiB to 16 MiB",
        ),
        (
            Host::new().variable("FARSEEK_READER_STALL_SECONDS", "0"),
            "reader.stall_seconds is 0: it must be at least 1",
        ),
    ];
    for (host, expected) in table {
        assert_eq!(host.error(), expected);
    }
}

#[test]
fn a_malformed_file_is_named() {
    let own = Host::new().file("etc/farseek.toml", "[reader").error();
    assert!(
        own.starts_with("the configuration file /etc/farseek.toml is malformed: "),
        "{own}"
    );
    let spfs = Host::new().file("etc/spfs.json", "{").error();
    assert!(
        spfs.starts_with("SPFS's configuration file /etc/spfs.json is malformed: "),
        "{spfs}"
    );
}
