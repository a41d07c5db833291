//! How a node is reached that does not let everyone in: its certificate held against roots of one's own, one's own
//! certificate, a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Endpoint, Uri};

use super::{Client, ClientError};
use crate::cryptography::{self, LACKING};

/// What a client shows a node, and asks of it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// A PEM file of what the node's certificate leads to; with it the connection is TLS, without it plain text.
    pub roots: Option<PathBuf>,
    /// One's own certificate chain and its private key, PEM files, for nodes that want one (mTLS); takes `roots`.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A bearer token in every call.
    pub token: Option<String>,
}

impl Client {
    /// Connects to a node as `access` says, such as `https://robot.lan:50051`.
    ///
    /// # Errors
    /// [`ClientError::Certificate`], [`ClientError::Connect`], [`ClientError::Token`].
    pub async fn connect_with(address: &str, access: &Access) -> Result<Self, ClientError> {
        let client = match &access.roots {
            Some(roots) => Self::connect_tls(address, roots, access.identity.as_ref()).await?,
            None => Self::connect(address).await?,
        };
        match &access.token {
            Some(token) => client.with_token(token),
            None => Ok(client),
        }
    }

    async fn connect_tls(
        address: &str,
        roots: &Path,
        identity: Option<&(PathBuf, PathBuf)>,
    ) -> Result<Self, ClientError> {
        let connector = TlsConnector::from(Arc::new(config(roots, identity)?));
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
        let bare = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
        let plain = format!("http://{bare}");
        Ok(Self::over(Endpoint::from_shared(plain)?.connect_with_connector(connect).await?))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn config(roots: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<ClientConfig, ClientError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source: BoxError| ClientError::Certificate { path, source }
    };
    let trusted = read_roots(roots).map_err(at(roots))?;
    let provider = cryptography::provider().ok_or_else(|| at(roots)(LACKING.into()))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| at(roots)(error.into()))?
        .with_root_certificates(trusted);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let certificates = read_chain(chain).map_err(at(chain))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| at(key)(error.into()))?;
            config.with_client_auth_cert(certificates, private).map_err(|error| at(key)(error.into()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() { Err("it holds no certificate".into()) } else { Ok(chain) }
}

fn read_roots(path: &Path) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    for root in read_chain(path)? {
        roots.add(root)?;
    }
    Ok(roots)
}
