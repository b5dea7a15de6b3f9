//! TLS, for calls and for payloads, and files that are not what they are to be.

use std::path::Path;
use std::sync::Arc;

use farseek_object::Digest;
use farseek_store::{ServerTls, SpfsServerOptions, StoreError};
use farseek_testkit::stock_client::{StockClient, digest_field, fields};
use farseek_testkit::{Need, need};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{keys, on_disk, open_to_all, serve};

/// Certificates, where they can be made.
fn certificates(test: &str) -> Option<TempDir> {
    if !need(test, &[Need::Program("openssl")]) {
        return None;
    }
    let keys = TempDir::new().unwrap();
    keys::certificates(keys.path());
    Some(keys)
}

async fn connect(
    keys: &Path,
    address: std::net::SocketAddr,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(keys.join("ca.pem")).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = "127.0.0.1".try_into().unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_payloads_are_encrypted() {
    let Some(keys) = certificates("calls_and_payloads_are_encrypted") else {
        return;
    };
    let (_root, repository) = on_disk();
    let tls = ServerTls::load(&keys.path().join("leaf.pem"), &keys.path().join("leaf.key"));
    let options = SpfsServerOptions {
        tls: Some(tls.unwrap()),
        ..open_to_all()
    };
    let server = serve(repository, options).await;

    let mut http = connect(keys.path(), server.http_addr(), b"http/1.1")
        .await
        .unwrap();
    let request = b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
    http.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    http.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));

    let stream = connect(keys.path(), server.grpc_addr(), b"h2")
        .await
        .unwrap();
    let client = StockClient::over(stream, server.grpc_addr()).await;
    let digest = Digest::of(b"abc");
    let ask = digest_field(1, digest.as_bytes());
    let opened = client
        .call("/spfs.PayloadService/OpenPayload", &ask)
        .await
        .field(2);
    let url = format!("https://{}/{digest}", server.http_addr());
    assert_eq!(fields(&opened), [(1, url.into_bytes())]);

    // Who speaks in the clear is not heard.
    let clear = super::ask(server.http_addr(), "GET / HTTP/1.1\r\n\r\n").await;
    assert!(clear.is_err(), "{clear:?}");
}

#[test]
fn files_that_do_not_go_together_are_told() {
    let Some(keys) = certificates("files_that_do_not_go_together_are_told") else {
        return;
    };
    let path = |name: &str| keys.path().join(name);
    let load = |certificate: &str, key: &str| ServerTls::load(&path(certificate), &path(key));
    assert!(load("leaf.pem", "leaf.key").is_ok());
    let missing = load("none.pem", "leaf.key").unwrap_err();
    assert!(matches!(missing, StoreError::Io { .. }), "{missing:?}");
    assert!(missing.to_string().contains("none.pem"), "{missing}");
    let missing = load("leaf.pem", "none.key").unwrap_err();
    assert!(missing.to_string().contains("none.key"), "{missing}");
    let swapped = load("leaf.key", "leaf.key").unwrap_err();
    assert!(matches!(swapped, StoreError::Invalid { .. }), "{swapped:?}");
    let no_key = load("leaf.pem", "leaf.pem").unwrap_err();
    assert!(matches!(no_key, StoreError::Invalid { .. }), "{no_key:?}");
    let other = load("leaf.pem", "ca.key").unwrap_err();
    assert!(other.to_string().contains("does not go with"), "{other}");
    std::fs::write(path("empty"), "").unwrap();
    assert!(load("empty", "leaf.key").is_err());
}
