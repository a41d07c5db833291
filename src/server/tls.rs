//! TLS, with the client's certificate or without.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::cryptography::{self, LACKING};

/// The files, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate, with those between it and the root behind it.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, SEC 1 or PKCS #1.
    pub key: PathBuf,
    /// Roots that a client's certificate must lead to; `None` where clients need none.
    pub client_ca: Option<PathBuf>,
}

/// TLS cannot be set up; says which file is at fault, or that the processor is.
#[derive(Debug, thiserror::Error)]
#[error("read {what} `{path}`")]
pub struct TlsError {
    what: &'static str,
    path: PathBuf,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// How connections are encrypted.
#[derive(Clone)]
pub struct Tls {
    pub(super) acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// A file that is not there, not PEM or empty, and a key that is not the certificate's.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = cryptography::provider().ok_or_else(|| {
            let source = format!("{LACKING}; take plain text on the Unix socket, behind a proxy with TLS");
            TlsError { what: "TLS certificate", path: files.certificate.clone(), source: source.into() }
        })?;
        let chain = certificates("TLS certificate", &files.certificate)?;
        let bad_key = |source| TlsError { what: "TLS key", path: files.key.clone(), source };
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad_key(Box::new(e)))?;
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| bad_key(Box::new(e)))?;
        let config = match &files.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let bad = |source| TlsError { what: "client CA", path: path.clone(), source };
                let mut roots = RootCertStore::empty();
                for root in certificates("client CA", path)? {
                    roots.add(root).map_err(|e| bad(Box::new(e)))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                config.with_client_cert_verifier(verifier.map_err(|e| bad(Box::new(e)))?)
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(|e| bad_key(Box::new(e)))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The same for HTTP/1.1 instead of HTTP/2: browsers open WebSockets over it.
    pub(super) fn over_http1(&self) -> Self {
        let mut config = ServerConfig::clone(self.acceptor.config());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |source| TlsError { what, path: path.to_owned(), source };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| bad(Box::new(e)))?;
    if found.is_empty() { Err(bad("it holds no certificate".into())) } else { Ok(found) }
}
