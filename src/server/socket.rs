//! Where the node listens: TCP, plain or with TLS, and a Unix socket; all of it one stream of connections.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::auth::{Peer, Tokens};
use super::tls::Tls;

/// Whoever has not finished the TLS handshake by then is cut off.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// TLS handshakes at a time.
const HANDSHAKES: usize = 64;
/// How long accepting rests after it failed, as it does where file descriptors run out.
const REST: Duration = Duration::from_millis(100);

/// Where a server listens, and what it asks of whoever connects.
#[derive(Default)]
pub struct Sockets {
    /// TCP.
    pub tcp: Option<TcpListener>,
    /// What TCP connections are encrypted with; `None` for plain text.
    pub tls: Option<Tls>,
    /// A Unix socket, always in plain text.
    pub unix: Option<UnixSocket>,
    /// The tokens of which a call must bring one; `None` where none is asked for.
    pub tokens: Option<Tokens>,
    /// Where metrics are told over plain HTTP.
    pub metrics: Option<TcpListener>,
    /// Where the page for browsers is; encrypted as TCP is.
    pub web: Option<TcpListener>,
}

impl From<TcpListener> for Sockets {
    fn from(tcp: TcpListener) -> Self {
        Self { tcp: Some(tcp), ..Self::default() }
    }
}

/// A bound Unix socket; its file goes with it.
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Binds it, for its user and group alone (mode 660). The file of a node that is gone makes way.
    ///
    /// # Errors
    /// Where something else is there, or another node listens, or the folder cannot be written.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
            }
            std::fs::remove_file(path)?;
        }
        let socket = Self { listener: UnixListener::bind(path)?, path: path.to_owned() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(socket)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One client's connection, whatever it runs over.
pub(super) struct Connection {
    io: Box<dyn Io>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

type Accepted = mpsc::Sender<io::Result<Connection>>;

/// Accepts on all sockets until nobody takes the connections any more.
pub(super) fn incoming(
    tcp: Option<TcpListener>,
    tls: Option<Tls>,
    unix: Option<UnixSocket>,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(1);
    if let Some(listener) = tcp {
        tokio::spawn(accept_tcp(listener, tls, accepted.clone()));
    }
    if let Some(socket) = unix {
        tokio::spawn(accept_unix(socket, accepted));
    }
    ReceiverStream::new(connections)
}

async fn accept_tcp(listener: TcpListener, tls: Option<Tls>, accepted: Accepted) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let stream = tokio::select! {
            () = accepted.closed() => return,
            outcome = listener.accept() => match outcome {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            },
        };
        // Without it a reply waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls.clone() else {
            let peer = Peer::of_tcp(&stream);
            let _ = accepted.send(Ok(Connection { io: Box::new(stream), peer })).await;
            continue;
        };
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let accepted = accepted.clone();
        tokio::spawn(async move {
            if let Some(connection) = shake_hands(stream, &tls).await {
                drop(permit);
                let _ = accepted.send(Ok(connection)).await;
            }
        });
    }
}

async fn shake_hands(stream: TcpStream, tls: &Tls) -> Option<Connection> {
    match tokio::time::timeout(HANDSHAKE, tls.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = peer_of(&stream);
            Some(Connection { io: Box::new(stream), peer })
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            None
        }
    }
}

fn peer_of(stream: &TlsStream<TcpStream>) -> Peer {
    let (tcp, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    certificate.map_or_else(|| Peer::of_tcp(tcp), |certificate| Peer::of_certificate(certificate))
}

async fn accept_unix(socket: UnixSocket, accepted: Accepted) {
    loop {
        let outcome = tokio::select! {
            () = accepted.closed() => return,
            outcome = socket.listener.accept() => outcome,
        };
        match outcome {
            Ok((stream, _)) => {
                let peer = Peer::of_user(stream.peer_cred().map(|c| c.uid()).ok());
                let _ = accepted.send(Ok(Connection { io: Box::new(stream), peer })).await;
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(REST).await;
            }
        }
    }
}
