//! A repository behind nginx, with ranges.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use farseek_store::{FsOptions, FsRepository, HttpRepository, Repository};
use farseek_testkit::{ChildGuard, Need, find_program, need, wait_until};
use futures::TryStreamExt;

use crate::keys;
use crate::site::{collect, content, options, site};

/// nginx over `root` until it is dropped.
struct Nginx {
    _child: ChildGuard,
    _prefix: tempfile::TempDir,
    port: u16,
}

fn program() -> Option<PathBuf> {
    // Debian puts it where only the superuser looks.
    let usual = Path::new("/usr/sbin/nginx");
    find_program("nginx").or_else(|| usual.exists().then(|| usual.to_owned()))
}

/// `listen` is what its server's `listen` says after the port, and what follows that.
fn start(program: &Path, root: &Path, listen: &str) -> Nginx {
    let prefix = tempfile::tempdir().unwrap();
    let port = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let dir = prefix.path().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {dir}/{name};"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
         events {{ worker_connections 64; }}
         http {{ access_log off; {temporary} default_type application/octet-stream; gzip on;
                 gzip_types application/octet-stream;
                 server {{ listen 127.0.0.1:{port}{listen} root \"{root}\"; }} }}",
        root = root.display(),
    );
    let file = prefix.path().join("nginx.conf");
    fs::write(&file, config).unwrap();
    let log = prefix.path().join("error.log");
    let mut child = ChildGuard::spawn(
        Command::new(program)
            .args([
                "-e".as_ref(),
                log.as_os_str(),
                "-p".as_ref(),
                prefix.path().as_os_str(),
            ])
            .args(["-c".as_ref(), file.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
    .unwrap();
    wait_until("nginx listens", Duration::from_secs(10), || {
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "{ended:?}: {}",
            fs::read_to_string(&log).unwrap_or_default()
        );
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Nginx {
        _child: child,
        _prefix: prefix,
        port,
    }
}

/// nginx over `root`; `None`, with a line that says so, where there is no nginx.
fn nginx(test: &str, root: &Path) -> Option<Nginx> {
    match program() {
        Some(program) => Some(start(&program, root, ";")),
        None => {
            assert!(
                !need(test, &[Need::Program("nginx")]),
                "it was not found a moment ago"
            );
            None
        }
    }
}

#[tokio::test]
async fn objects_tags_and_ranges_of_payloads() {
    let site = site().await;
    let Some(nginx) = nginx("objects_tags_and_ranges_of_payloads", site.dir.path()) else {
        return;
    };
    let url = format!("http://127.0.0.1:{}/my repo", nginx.port)
        .parse()
        .unwrap();
    let repository = HttpRepository::open(url, options(5000)).unwrap();
    assert_eq!(repository.check().await.unwrap().as_deref(), Some("0.44.0"));
    assert!(repository.get_object(&site.object).await.is_ok());
    let name = "org/deep/name.1".parse().unwrap();
    assert_eq!(
        repository.read_tag(&name).await.unwrap(),
        site.fs.read_tag(&name).await.unwrap()
    );
    assert_eq!(
        repository.payload_size(&site.payload).await.unwrap(),
        Some(10_000)
    );
    for asked in [0..1, 100..200, 9_999..10_000, 9_990..20_000, 3..u64::MAX] {
        let payload = repository
            .get_payload(&site.payload, asked.clone())
            .await
            .unwrap();
        let end = asked.end.min(10_000);
        assert_eq!(
            (payload.size, &payload.range),
            (Some(10_000), &(asked.start..end))
        );
        let bytes = collect(payload).await.unwrap();
        assert_eq!(bytes, content()[asked.start as usize..end as usize]);
    }
    let payload = repository
        .get_payload(&site.payload, 10_000..10_001)
        .await
        .unwrap();
    assert_eq!(
        (payload.size, payload.range.clone()),
        (Some(10_000), 10_000..10_000)
    );
    let missing = farseek_object::Digest::from_bytes([1; 32]);
    assert!(
        repository
            .get_payload(&missing, 0..1)
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(!repository.has_object(&missing).await.unwrap());
    assert!(repository.list_tags("").await.is_err());
}

#[tokio::test]
async fn every_object_and_payload_that_spfs_wrote() {
    let test = "every_object_and_payload_that_spfs_wrote";
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let Ok(fixtures) = fixtures.canonicalize() else {
        let line = format!("LEFT OUT: {test}: it needs {}", fixtures.display());
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{line}"
        );
        eprintln!("{line}");
        return;
    };
    let Some(nginx) = nginx(test, &fixtures) else {
        return;
    };
    let mut seen = 0;
    for name in ["repo", "repo-legacy"] {
        let disk = FsRepository::open(&fixtures.join(name), FsOptions::default()).unwrap();
        let url = format!("http://127.0.0.1:{}/{name}", nginx.port)
            .parse()
            .unwrap();
        let remote = HttpRepository::open(url, options(5000)).unwrap();
        let objects: Vec<_> = disk.list_objects(None).try_collect().await.unwrap();
        seen += objects.len();
        for digest in &objects {
            let object = remote.get_object(digest).await.unwrap();
            assert_eq!(object, disk.get_object(digest).await.unwrap());
        }
        let payloads: Vec<_> = disk.list_payloads().try_collect().await.unwrap();
        assert!(!payloads.is_empty());
        for digest in &payloads {
            let payload = remote.get_payload(digest, 0..u64::MAX).await.unwrap();
            assert_eq!(
                farseek_object::Digest::of(&collect(payload).await.unwrap()),
                *digest
            );
        }
    }
    assert_eq!(seen, 151, "as FORMAT.md counts them");
}

/// The variable that tells the test below that it is the child, which trusts the certificate.
const TLS_URL: &str = "FARSEEK_TEST_TLS_URL";

#[tokio::test]
async fn tls_is_verified() {
    if let Ok(url) = std::env::var(TLS_URL) {
        return trusting(&url).await;
    }
    let test = "tls_is_verified";
    let Some(program) = program().filter(|_| find_program("openssl").is_some()) else {
        assert!(!need(
            test,
            &[Need::Program("nginx"), Need::Program("openssl")]
        ));
        return;
    };
    let site = site().await;
    let keys = tempfile::tempdir().unwrap();
    keys::certificates(keys.path());
    let listen = format!(
        " ssl; ssl_certificate {dir}/leaf.pem; ssl_certificate_key {dir}/leaf.key;
         location = /down/VERSION {{ return 302 http://127.0.0.1:9/; }}
         location = /up/VERSION {{ return 302 https://$http_host/my%20repo/VERSION; }}",
        dir = keys.path().display()
    );
    let nginx = start(&program, site.dir.path(), &listen);
    let url = format!("https://127.0.0.1:{}", nginx.port);
    let repository = HttpRepository::open(url.parse().unwrap(), options(5000)).unwrap();
    let error = repository.check().await.unwrap_err().to_string();
    assert!(
        error.contains("cannot connect") && error.contains("certificate"),
        "{error}"
    );

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nginx::tls_is_verified", "--nocapture"])
        .env(TLS_URL, &url)
        .env("SSL_CERT_FILE", keys.path().join("ca.pem"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}

/// What a program sees that trusts the server's certificate.
async fn trusting(url: &str) {
    let open = |path: &str| {
        let url = format!("{url}/{path}").parse().unwrap();
        HttpRepository::open(url, options(5000)).unwrap()
    };
    assert_eq!(
        open("my repo").check().await.unwrap().as_deref(),
        Some("0.44.0")
    );
    assert_eq!(open("up").check().await.unwrap().as_deref(), Some("0.44.0"));
    let error = open("down").check().await.unwrap_err().to_string();
    assert!(error.contains("from https to http"), "{error}");
}
