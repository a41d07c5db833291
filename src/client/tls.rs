//! A node over TLS, its certificate held against roots of one's own.

use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Endpoint, Uri};

use super::{Client, ClientError};

impl Client {
    /// Connects to a node that takes TLS, such as `https://robot.lan:50051`; `roots` is a PEM file of what its
    /// certificate leads to.
    ///
    /// # Errors
    /// [`ClientError::Roots`], [`ClientError::Connect`].
    pub async fn connect_tls(address: &str, roots: &Path) -> Result<Self, ClientError> {
        let config = config(roots).map_err(|source| ClientError::Roots { path: roots.to_owned(), source })?;
        let connector = TlsConnector::from(Arc::new(config));
        let connect = tower::service_fn(move |uri: Uri| {
            let connector = connector.clone();
            async move {
                let none = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "the address names no host");
                let host = uri.host().ok_or_else(none)?.trim_start_matches('[').trim_end_matches(']').to_owned();
                let port = uri.port_u16().unwrap_or(443);
                let name = ServerName::try_from(host.clone()).map_err(|_| none())?;
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        // The connector encrypts; tonic itself is built without TLS and takes no https.
        let plain = format!("http://{}", address.trim_start_matches("https://"));
        Ok(Self::over(Endpoint::from_shared(plain)?.connect_with_connector(connect).await?))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn config(path: &Path) -> Result<ClientConfig, BoxError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path)? {
        roots.add(root?)?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".into());
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
