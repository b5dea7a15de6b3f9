//! `grpcs`: the same protocol through TLS, and no secret beyond it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use farseek_object::Digest;
use farseek_store::{GrpcOptions, Repository};
use farseek_testkit::{Need, need};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::keys;
use super::sample::payload;
use super::site::{Site, client, options};

/// Where the child that trusts the certificate finds the server and a payload.
const CHILD: &str = "FARSEEK_TEST_GRPCS";

/// Ends TLS in front of `server`.
async fn front(keys: &Path, server: SocketAddr, protocol: &[u8]) -> SocketAddr {
    let certificates = CertificateDer::pem_file_iter(keys.join("leaf.pem")).expect("a file");
    let certificates = certificates
        .collect::<Result<_, _>>()
        .expect("certificates");
    let key = PrivateKeyDer::from_pem_file(keys.join("leaf.key")).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .expect("a certificate");
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for _ in 0..100 {
            let (near, _) = listener.accept().await.expect("a connection");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us hangs up.
                let Ok(mut near) = acceptor.accept(near).await else {
                    return;
                };
                let mut far = TcpStream::connect(server).await.expect("a server");
                drop(copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_payloads_through_tls() {
    if let Ok(told) = std::env::var(CHILD) {
        return trusting(&told).await;
    }
    let needs = [Need::Program("openssl")];
    if !need("calls_and_payloads_through_tls", &needs) {
        return;
    }
    let keys = tempfile::tempdir().expect("a directory");
    keys::certificates(keys.path());
    let site = Site::new();
    let (digest, _) = site.payload(100_000).await;
    let plain = site.server.url();
    let plain = plain
        .trim_start_matches("grpc://")
        .parse()
        .expect("an address");
    let grpc = front(keys.path(), plain, b"h2").await;
    let http = front(keys.path(), site.server.http_address(), b"http/1.1").await;
    let url = format!("grpcs://{grpc}");

    let error = client(&url, options())
        .check()
        .await
        .expect_err("not trusted");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(error.is_transient());

    let trusting = async |root: &str| {
        site.server.clear();
        site.server.set_payloads_root(root);
        let mut child = Command::new(std::env::current_exe().expect("a program"));
        child
            .args([
                "--exact",
                "tls::calls_and_payloads_through_tls",
                "--nocapture",
            ])
            .env(CHILD, format!("{url} {digest}"))
            .env("SSL_CERT_FILE", keys.path().join("ca.pem"));
        let child = tokio::task::spawn_blocking(move || child.output());
        let child = child.await.expect("no panic").expect("it runs");
        let said = String::from_utf8_lossy(&child.stdout);
        let wrong = String::from_utf8_lossy(&child.stderr);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}{wrong}"
        );
        let requests = site.server.requests();
        let secret = |r: &&farseek_testkit::StockRequest| !r.header("authorization").is_empty();
        let transfers = requests.iter().filter(|r| r.what.starts_with("GET"));
        assert!(
            requests
                .iter()
                .filter(|r| r.what.starts_with('/'))
                .all(|r| secret(&r))
        );
        transfers.filter(secret).count()
    };
    assert_eq!(
        trusting(&format!("https://{http}/")).await,
        1,
        "to its own place"
    );
    let open = format!("http://{}/", site.server.http_address());
    assert_eq!(trusting(&open).await, 0, "not without encryption");
}

/// What a program sees that trusts the server's certificate.
async fn trusting(told: &str) {
    let (url, digest) = told.split_once(' ').expect("two words");
    let options = GrpcOptions {
        token: Some("secret".parse().expect("a token")),
        ..options()
    };
    let client = client(url, options);
    client.check().await.expect("trusted");
    let digest: Digest = digest.parse().expect("a digest");
    assert!(!client.has_object(&digest).await.expect("an answer"));
    let bytes = payload(&client, &digest, 0..u64::MAX).await;
    assert_eq!(Digest::of(&bytes), digest);
}
