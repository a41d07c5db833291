//! A live page for browsers: HTTP for the page itself, a WebSocket for its stream.
//!
//! Browsers cannot speak gRPC, and gRPC-Web has no streams in both directions. So a message of the WebSocket is a
//! message of the contract: `PerceiveRequest` to the node, `PerceiveResponse` back, in binary. Who may open a stream, how
//! many, and how large its messages may be is what it is over gRPC; only the transport is another.
//!
//! | path | what is there |
//! |---|---|
//! | `/` and the files it names | the page; it loads nothing from elsewhere |
//! | `/describe` | `DescribeResponse`, encoded; takes `authorization: Bearer TOKEN` where the node has tokens |
//! | `/perceive` | the WebSocket; see [`socket`] for its subprotocols and how it is closed |

mod files;
mod origin;
mod socket;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;

use super::AbortOnDrop;
use super::auth::{Guard, Peer, bearer};
use super::perception::Perception;
use super::socket::{Connection, incoming};
use super::tls::Tls;

pub(super) use origin::is_origin;

/// Connections at a time that have opened no WebSocket; a page takes half a dozen for a moment.
const CONNECTIONS: usize = 256;
/// WebSockets at a time; `max_sessions` allows no more.
const SOCKETS: u32 = 4096;
/// A client that has not sent its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

type Answer = Response<Full<Bytes>>;

/// The page and what it asks.
pub(super) struct Web {
    perception: Arc<Perception>,
    guard: Guard,
    /// An origin that is let in besides the node's own.
    origin: Option<String>,
    sockets: Arc<Semaphore>,
}

/// A page that is served; dropping it ends that, but for WebSockets that are open.
pub(super) struct Page {
    accepting: AbortOnDrop,
    sockets: Arc<Semaphore>,
}

impl Page {
    /// Takes no more, and waits for the WebSockets that are open.
    pub(super) async fn end(self) {
        drop(self.accepting);
        let _ = self.sockets.acquire_many(SOCKETS).await;
    }
}

impl Web {
    pub(super) fn new(perception: Arc<Perception>, guard: Guard, origin: Option<String>) -> Self {
        Self { perception, guard, origin, sockets: Arc::new(Semaphore::new(SOCKETS as usize)) }
    }

    /// Serves on `listener` for as long as the page is kept.
    pub(super) fn serve(self, listener: TcpListener, tls: Option<Tls>) -> Page {
        let (sockets, encrypted) = (self.sockets.clone(), tls.is_some());
        let mut connections = incoming(Some(listener), tls, None);
        let accepting = tokio::spawn(async move {
            let (web, places) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)));
            while let Some(Ok(connection)) = connections.next().await {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let web = web.clone();
                tokio::spawn(async move {
                    talk(connection, encrypted, &web).await;
                    drop(place);
                });
            }
        });
        Page { accepting: AbortOnDrop(accepting), sockets }
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer, encrypted: bool) -> Answer {
        if let Err(why) = origin::check(request.headers(), encrypted, self.origin.as_deref()) {
            return text(StatusCode::FORBIDDEN, why);
        }
        let path = request.uri().path();
        if path != "/perceive" && path != "/describe" && files::find(path).is_none() {
            return text(StatusCode::NOT_FOUND, "the page is at /");
        }
        if request.method() != Method::GET && (request.method() != Method::HEAD || path == "/perceive") {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use GET");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        if let Some(file) = files::find(path) {
            return whole(StatusCode::OK, file.kind, Bytes::from_static(file.bytes));
        }
        let token = token(request.headers());
        let client = match self.guard.client(Some(peer), token.as_deref()) {
            Ok(client) => client,
            Err(status) => {
                let mut refused = text(StatusCode::UNAUTHORIZED, status.message());
                refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return refused;
            }
        };
        if path == "/describe" {
            return whole(StatusCode::OK, PROTOBUF, self.perception.about().encode_to_vec().into());
        }
        let Ok(place) = self.sockets.clone().try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many WebSockets are open");
        };
        let perception = self.perception.clone();
        socket::upgrade(request, async move |io| {
            socket::run(io, &perception, &client).await;
            drop(place);
        })
    }
}

/// One connection, until it ends or becomes a WebSocket.
async fn talk(connection: Connection, encrypted: bool, web: &Web) {
    let peer = connection.connect_info();
    let answer = service_fn(async |request| {
        let mut answer = web.answer(request, &peer, encrypted).await;
        files::protect(answer.headers_mut());
        Ok::<_, Infallible>(answer)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(connection), answer).with_upgrades().await {
        tracing::debug!(%error, "connection of a browser broke");
    }
}

/// The token of a request: in its own header, or, since a browser's WebSocket cannot set one, among the subprotocols.
fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    match headers.get(AUTHORIZATION) {
        Some(value) => bearer(value.as_bytes()).map(<[u8]>::to_vec),
        None => socket::token(headers),
    }
}

fn text(status: StatusCode, what: &str) -> Answer {
    whole(status, TEXT, format!("{what}\n").into())
}

fn whole(status: StatusCode, kind: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
