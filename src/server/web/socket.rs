//! The WebSocket: one stream of the contract.
//!
//! Subprotocols: `sam4mllm.v1`, which is the one that is spoken, and beside it `sam4mllm.v1.bearer.HEX` with the token's
//! bytes in hex digits, for a browser's WebSocket can send no header of its own, and what is in an address gets into logs.
//!
//! A binary message is one request or reply. One that is no request, and a text message, is refused by a `Rejected` and
//! the stream goes on; one above `max_message_bytes` ends it. The close code is 1000 where the stream ended well, else
//! 4000 and the gRPC status code (4008 for `RESOURCE_EXHAUSTED`, 4014 for `UNAVAILABLE`), with its message as the reason.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use hyper::header::{SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tonic::Status;

use super::super::perception::Perception;
use super::super::stream::{Heard, Requests};
use super::super::{FLUSH, KEEPALIVE, wire};
use super::{Answer, text, whole};
use crate::node::{NodeError, NodeErrorKind};

/// What is spoken.
const PROTOCOL: &str = "sam4mllm.v1";
/// What stands before a token's hex digits.
const BEARER: &str = "sam4mllm.v1.bearer.";
/// The most bytes of a close frame's reason. Source: RFC 6455, section 5.5.
const MAX_REASON_BYTES: usize = 123;
/// The longest token that is read; the list of tokens has none that is longer.
const MAX_TOKEN_BYTES: usize = 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The subprotocols that the client offers.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',').map(str::trim))
}

/// The token among them; `None` where there is none, or not in hex digits.
pub(super) fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let digits = offered(headers).find_map(|name| name.strip_prefix(BEARER))?.as_bytes();
    if digits.len() % 2 != 0 || digits.len() > 2 * MAX_TOKEN_BYTES {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Answers a request for a WebSocket, and has `talk` speak over it. Source: RFC 6455, section 4.2.
pub(super) fn upgrade<B: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    mut request: Request<B>,
    talk: impl FnOnce(Upgraded) -> F + Send + 'static,
) -> Answer {
    let headers = request.headers();
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|list| list.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
    };
    if request.version() != Version::HTTP_11 || !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        let mut refused = text(StatusCode::UPGRADE_REQUIRED, "open a WebSocket here");
        refused.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        return refused;
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accepted = key.and_then(|key| HeaderValue::try_from(key).ok());
    let (Some(accepted), true) = (accepted, has(SEC_WEBSOCKET_VERSION, "13")) else {
        let mut refused = text(StatusCode::BAD_REQUEST, "send Sec-WebSocket-Key, and Sec-WebSocket-Version: 13");
        refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return refused;
    };
    let spoken = offered(headers).any(|name| name == PROTOCOL);
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => talk(io).await,
            Err(error) => tracing::debug!(%error, "upgrade to WebSocket failed"),
        }
    });
    let mut answer = whole(StatusCode::SWITCHING_PROTOCOLS, super::TEXT, Bytes::new());
    let headers = answer.headers_mut();
    headers.clear();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    if spoken {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    answer
}

/// Speaks for `client` until the stream or the connection ends.
pub(super) async fn run(io: Upgraded, perception: &Perception, client: &std::sync::Arc<str>) {
    let most = Some(perception.max_message_bytes);
    let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config)).await;
    let (mut sink, stream) = socket.split();
    let why = match perception.open(client, Inbound { stream, max_bytes: perception.max_message_bytes }).await {
        Ok(replies) => tell(&mut sink, replies).await,
        Err(status) => Some(status),
    };
    if tokio::time::timeout(FLUSH, sink.send(Message::Close(Some(farewell(why.as_ref()))))).await.is_ok() {
        // A connection that is let go while the client still sends is reset, and the reason may be lost with it.
        tokio::time::sleep(if why.is_some() { FLUSH } else { Duration::ZERO }).await;
    }
}

/// Sends replies until there are none; why the stream ended, where it did not end well.
async fn tell(
    sink: &mut SplitSink<Socket, Message>,
    mut replies: mpsc::Receiver<Result<wire::PerceiveResponse, Status>>,
) -> Option<Status> {
    let mut pings = tokio::time::interval(KEEPALIVE);
    loop {
        let message = tokio::select! {
            reply = replies.recv() => match reply {
                Some(Ok(reply)) => Message::Binary(reply.encode_to_vec().into()),
                Some(Err(status)) => return Some(status),
                None => return None,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        // Whoever takes nothing for that long is gone.
        match tokio::time::timeout(2 * KEEPALIVE, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => return Some(Status::unavailable("serve stream: nothing was taken for 40 s")),
        }
    }
}

fn farewell(why: Option<&Status>) -> CloseFrame {
    let Some(status) = why else { return CloseFrame { code: CloseCode::Normal, reason: "".into() } };
    let code = u16::try_from(i32::from(status.code())).map_or(4002, |code| 4000 + code);
    let mut reason = status.message().to_owned();
    reason.truncate((0..=MAX_REASON_BYTES).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0));
    CloseFrame { code: CloseCode::from(code), reason: reason.into() }
}

/// What the client says.
struct Inbound {
    stream: SplitStream<Socket>,
    max_bytes: usize,
}

impl Requests for Inbound {
    async fn next(&mut self) -> Result<Heard, Status> {
        let garbled = |what| Ok(Heard::Garbled(NodeError::new(NodeErrorKind::Request, what)));
        loop {
            // Pings are answered, so somebody who is there says something in that time.
            let Ok(message) = tokio::time::timeout(2 * KEEPALIVE, self.stream.next()).await else {
                return Err(Status::unavailable("serve stream: nothing was heard for 40 s"));
            };
            return match message {
                Some(Ok(Message::Binary(bytes))) => match wire::PerceiveRequest::decode(bytes) {
                    Ok(request) => Ok(Heard::Request(Box::new(request))),
                    Err(error) => garbled(format!("read request: {error}")),
                },
                Some(Ok(Message::Text(_))) => garbled("read request: it is text, expected a binary message".into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_))) | None => Ok(Heard::End),
                Some(Err(SocketError::Capacity(_))) => {
                    let what = format!("read request: it has more than {} bytes", self.max_bytes);
                    Err(Status::out_of_range(what))
                }
                Some(Err(SocketError::Protocol(error))) => {
                    Err(Status::invalid_argument(format!("read request: {error}")))
                }
                Some(Err(SocketError::Utf8(_))) => Err(Status::invalid_argument("read request: it is no UTF-8")),
                Some(Err(_)) => Ok(Heard::End),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_subprotocols() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value.parse().expect("a value"));
            token(&headers)
        };
        assert_eq!(read("sam4mllm.v1, sam4mllm.v1.bearer.6162ff"), Some(vec![0x61, 0x62, 0xff]));
        for other in ["sam4mllm.v1", "sam4mllm.v1.bearer.616", "sam4mllm.v1.bearer.6g", "bearer.6162"] {
            assert_eq!(read(other), None, "{other}");
        }
        let long = format!("{BEARER}{}", "61".repeat(MAX_TOKEN_BYTES + 1));
        assert_eq!(read(&long), None);
    }

    #[test]
    fn reasons_fit_a_close_frame() {
        let said = farewell(Some(&Status::resource_exhausted("ü".repeat(100))));
        assert_eq!((u16::from(said.code), said.reason.len()), (4008, 122));
        assert_eq!(farewell(None).code, CloseCode::Normal);
    }
}
