//! TLS with the certificates this machine trusts, and a provider that is ours alone.
//!
//! The configuration is built explicitly, so no process-wide default has to be installed.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::error::{Result, Source, StoreError};

/// The client's side of TLS.
///
/// # Errors
/// Where the trusted certificates cannot be loaded, though `needed`: an `http` repository works
/// without any, as long as it does not redirect to `https`.
pub(super) fn config(location: &str, needed: bool) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |source: Source| StoreError::Unavailable {
        location: location.to_owned(),
        reason: format!("TLS cannot be set up: {source}"),
        source: Some(source),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.into()))?;
    match Verifier::new(provider) {
        Ok(verifier) => {
            let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
            Ok(builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth())
        }
        Err(error) if needed => Err(failed(error.into())),
        Err(_) => Ok(builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()),
    }
}
