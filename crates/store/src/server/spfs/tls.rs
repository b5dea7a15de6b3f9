//! The server's side of TLS, from files.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::error::{Result, StoreError};

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads a chain of certificates, the server's own first, and its private key: PEM files.
    ///
    /// # Errors
    /// `Io` where a file cannot be read, `Invalid` where it is not what it is to be, or where the
    /// key is not the certificate's.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(certificates).and_then(Iterator::collect);
        let chain = chain.map_err(|error| unreadable("certificate", certificates, error))?;
        if chain.is_empty() {
            return Err(invalid("certificate", certificates, "there is none in it"));
        }
        let private = PrivateKeyDer::from_pem_file(key);
        let private = private.map_err(|error| unreadable("private key", key, error))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid("certificate", certificates, error))?
            .with_no_client_auth();
        let config = builder.with_single_cert(chain, private).map_err(|error| {
            let reason = format!("it does not go with {}: {error}", certificates.display());
            invalid("private key", key, reason)
        })?;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// What greets clients: for calls, and for payloads.
    pub(super) fn acceptors(&self) -> (TlsAcceptor, TlsAcceptor) {
        let speaking = |protocol: &[u8]| {
            let mut config = ServerConfig::clone(&self.config);
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsAcceptor::from(Arc::new(config))
        };
        (speaking(b"h2"), speaking(b"http/1.1"))
    }
}

fn unreadable(what: &'static str, path: &Path, error: pem::Error) -> StoreError {
    match error {
        pem::Error::Io(error) => StoreError::io("read", path)(error),
        error => invalid(what, path, error),
    }
}

fn invalid(what: &'static str, path: &Path, reason: impl ToString) -> StoreError {
    StoreError::Invalid {
        what,
        text: path.display().to_string(),
        reason: reason.to_string(),
    }
}
