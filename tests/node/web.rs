//! The live page's side of the node: HTTP, and the contract over a WebSocket.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sam4mllm::pipeline::fake::Script;
use sam4mllm::server::wire::perceive_request::Request;
use sam4mllm::server::wire::perceive_response::Response;
use sam4mllm::server::wire::{self, ErrorCode, Verdict};
use sam4mllm::server::{ServerConfig, Sockets};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::access::{TOKEN, connector, tls, tokens};
use crate::harness::{RED, Running, Scene, backend, error_of, iou, of, rle, soon, target};
use crate::metrics::get;

/// A node with a page.
pub(crate) async fn node_with_page(sockets: Sockets, adjust: impl FnOnce(&mut ServerConfig)) -> (Running, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let script = Script::default();
    let sockets = Sockets { web: Some(listener), ..sockets };
    let node = Running::launch_on(sockets, backend(&script), script, adjust).await;
    (node, address)
}

/// A WebSocket to the node, from its own page or from anywhere.
struct Socket<S>(WebSocketStream<S>);

type Headers<'a> = &'a [(&'static str, &'a str)];

async fn open_over<S>(io: S, host: &str, headers: Headers<'_>) -> Result<Socket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("ws://{host}/perceive").into_client_request().expect("an address");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    let (socket, _) = soon("a WebSocket", tokio_tungstenite::client_async(request, io)).await?;
    Ok(Socket(socket))
}

async fn open(address: SocketAddr, headers: Headers<'_>) -> Result<Socket<TcpStream>, Error> {
    let io = TcpStream::connect(address).await.expect("connects");
    open_over(io, &address.to_string(), headers).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    async fn send(&mut self, message: Message) {
        soon("room for a message", self.0.send(message)).await.expect("is open");
    }

    async fn ask(&mut self, request: Request) {
        let request = wire::PerceiveRequest { request: Some(request), options: None };
        self.send(Message::Binary(request.encode_to_vec().into())).await;
    }

    async fn hear(&mut self) -> Response {
        loop {
            match soon("a reply", self.0.next()).await.expect("goes on").expect("goes on") {
                Message::Binary(bytes) => {
                    let reply = wire::PerceiveResponse::decode(bytes).expect("is a reply");
                    return reply.response.expect("is never empty");
                }
                Message::Ping(_) => {}
                other => panic!("expected a reply, got {other:?}"),
            }
        }
    }

    async fn frame(&mut self, frame: wire::Frame) -> wire::FrameResult {
        self.ask(Request::Frame(frame)).await;
        match self.hear().await {
            Response::Frame(frame) => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// Sends the scene until the target has a mask.
    async fn found(&mut self, scene: &Scene, id: &str) -> wire::FrameResult {
        for seq in 1.. {
            let frame = self.frame(scene.frame(seq)).await;
            if of(&frame, id).verdict() == Verdict::Found {
                return frame;
            }
        }
        unreachable!("numbers do not end")
    }

    async fn refusal(&mut self) -> Option<ErrorCode> {
        match self.hear().await {
            Response::Rejected(rejected) => error_of(&rejected.error),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// Code and reason with which the node closes.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            match soon("the end", self.0.next()).await.expect("says why it ends") {
                Ok(Message::Close(frame)) => {
                    let frame = frame.expect("has a code");
                    return (frame.code.into(), frame.reason.to_string());
                }
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn refused(outcome: Result<Socket<TcpStream>, Error>) -> u16 {
    match outcome {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

/// What two runs cannot share: clocks, and how long things took.
fn without_times(mut frame: wire::FrameResult) -> wire::FrameResult {
    (frame.seq, frame.stamp_ns, frame.received_ns, frame.sent_ns) = (0, 0, 0, 0);
    frame.timings.clear();
    frame.counters = None;
    for target in &mut frame.targets {
        (target.phase, target.look, target.why) = (0, 0, 0);
        for instance in &mut target.instances {
            (instance.grounded_seq, instance.grounded_age_ms, instance.mask_seq) = (0, 0, 0);
            (instance.origin, instance.instance_id) = (0, 0);
        }
    }
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_is_answered_as_grpc_is() {
    let (mut node, address) = node_with_page(Sockets::default(), |_| {}).await;
    node.ready().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut grpc = node.stream().await;
    grpc.set([target("r", "red"), target("g", "green")]).await;
    let expected = grpc.until_verdict(&scene, "r", Verdict::Found).await;
    let expected = if of(&expected, "g").verdict() == Verdict::Absent {
        expected
    } else {
        grpc.until_verdict(&scene, "g", Verdict::Absent).await
    };

    let origin = format!("http://{address}");
    let mut web =
        open(address, &[("origin", &origin), ("sec-websocket-protocol", "sam4mllm.v1")]).await.expect("opens");
    let targets = vec![target("r", "red"), target("g", "green")];
    web.ask(Request::SetTargets(wire::SetTargets { targets })).await;
    let mut got = web.found(&scene, "r").await;
    while of(&got, "g").verdict() != Verdict::Absent {
        got = web.frame(scene.frame(got.seq + 1)).await;
    }
    let instance = &of(&got, "r").instances[0];
    assert!(iou(instance, &scene.truth(0)) > 0.95);
    assert_eq!(rle(instance), rle(&of(&expected, "r").instances[0]));
    assert_eq!(without_times(got.clone()), without_times(expected));

    let question = wire::Question { question_id: "q".into(), command: "red".into(), ..Default::default() };
    web.ask(Request::Question(question)).await;
    let Response::Answer(answer) = web.hear().await else { panic!("no answer") };
    assert_eq!(answer.question_id, "q");

    // A shutdown says so, and does not wait for a client that stays.
    node.ask_to_stop();
    let (code, reason) = web.closed().await;
    assert!(code == 4014 && reason.contains("shutting down"), "{code} {reason}");
    node.ended().await.expect("ends well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_refused_and_the_stream_goes_on() {
    let (node, address) = node_with_page(Sockets::default(), |config| config.max_message_bytes = 1 << 16).await;
    node.ready().await;
    let mut web = open(address, &[]).await.expect("a program needs no origin");
    web.send(Message::Binary(vec![0xff; 40].into())).await;
    assert_eq!(web.refusal().await, Some(ErrorCode::Request));
    web.send(Message::text("the red mug")).await;
    assert_eq!(web.refusal().await, Some(ErrorCode::Request));
    // No bytes are a request without anything in it.
    web.send(Message::Binary(Vec::new().into())).await;
    assert_eq!(web.refusal().await, Some(ErrorCode::Request));
    web.ask(Request::Frame(wire::Frame {
        seq: 1,
        encoding: "jpeg".into(),
        data: vec![1, 2, 3].into(),
        ..Default::default()
    }))
    .await;
    assert_eq!(web.refusal().await, Some(ErrorCode::FrameEncoding));
    let scene = Scene::new().with(RED, 100, 80);
    web.ask(Request::AddTarget(target("r", "red"))).await;
    let mut seq = 2;
    while of(&web.frame(scene.frame(seq)).await, "r").verdict() != Verdict::Found {
        seq += 1;
    }
    // What is too large cannot be told from what follows.
    web.send(Message::Binary(vec![0; (1 << 16) + 1].into())).await;
    let (code, reason) = web.closed().await;
    assert!(code == 4011 && reason.contains("65536"), "{code} {reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_pages_and_wrong_tokens_stay_outside() {
    let (node, address) = node_with_page(Sockets { tokens: Some(tokens()), ..Sockets::default() }, |_| {}).await;
    let digits: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let protocols = format!("sam4mllm.v1, sam4mllm.v1.bearer.{digits}");
    let own = format!("http://{address}");
    let held = ("sec-websocket-protocol", protocols.as_str());
    assert_eq!(refused(open(address, &[held, ("origin", "http://evil.example")]).await), 403);
    assert_eq!(refused(open(address, &[held, ("origin", &own), ("host", "evil.example")]).await), 403);
    assert_eq!(refused(open(address, &[("origin", &own)]).await), 401);
    let wrong = "sam4mllm.v1, sam4mllm.v1.bearer.6162";
    assert_eq!(refused(open(address, &[("sec-websocket-protocol", wrong)]).await), 401);
    assert_eq!(refused(open(address, &[("authorization", "Bearer 6162")]).await), 401);
    let ready = async |headers: Headers<'_>| loop {
        // Before the node is ready a stream is closed with UNAVAILABLE.
        let mut socket = open(address, headers).await.expect("is let in");
        socket.ask(Request::RemoveTarget(wire::RemoveTarget { target_id: "none".into() })).await;
        match soon("a reply", socket.0.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 4014),
            Some(Ok(Message::Ping(_))) => break,
            Some(Ok(Message::Binary(_))) => break,
            other => panic!("{other:?}"),
        }
    };
    ready(&[held, ("origin", &own)]).await;
    ready(&[("authorization", &format!("Bearer {TOKEN}"))]).await;
    // Under a name that could be anybody's.
    assert_eq!(get(address, "/describe").await.0, "HTTP/1.1 403 Forbidden");
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_those_of_grpc() {
    let (node, address) = node_with_page(Sockets::default(), |config| config.limits.client_streams = 1).await;
    node.ready().await;
    let grpc = node.stream().await;
    let mut second = open(address, &[]).await.expect("opens");
    let (code, reason) = second.closed().await;
    assert!(code == 4008 && reason.contains("its limit is 1"), "{code} {reason}");
    drop(grpc);
    node.lets_in().await;
}

/// The page's start, over TLS as a browser speaks it, with the certificate called `identity`.
async fn over_tls(address: SocketAddr, identity: Option<&str>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    // As a browser offers it for a WebSocket.
    connector(identity, "http/1.1").connect(name, TcpStream::connect(address).await?).await
}

/// What is read where the page is asked for.
async fn page(address: SocketAddr, identity: Option<&str>) -> std::io::Result<String> {
    let mut page = over_tls(address, identity).await?;
    page.write_all(b"GET / HTTP/1.1\r\nHost: robot.lan\r\nConnection: close\r\n\r\n").await?;
    let mut text = Vec::new();
    soon("the page", page.read_to_end(&mut text)).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_goes_over_tls() {
    let (node, address) = node_with_page(Sockets { tls: Some(tls(None)), ..Sockets::default() }, |_| {}).await;
    assert!(page(address, None).await.expect("is read").starts_with("HTTP/1.1 200 OK"));
    let io = over_tls(address, None).await.expect("shakes hands");
    let mut socket = open_over(io, "robot.lan", &[("origin", "https://robot.lan")]).await.expect("is let in");
    socket.send(Message::text("hello")).await;
    let first = soon("an answer", socket.0.next()).await.expect("goes on").expect("goes on");
    assert!(!matches!(first, Message::Text(_)));
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_for_those_with_a_certificate_where_grpc_is() {
    let sockets = Sockets { tls: Some(tls(Some("root.pem"))), ..Sockets::default() };
    let (node, address) = node_with_page(sockets, |_| {}).await;
    assert!(page(address, Some("client")).await.expect("is read").starts_with("HTTP/1.1 200 OK"));
    for identity in [None, Some("stranger")] {
        // In TLS 1.3 a client learns of it when it first reads.
        let read = page(address, identity).await;
        assert!(read.as_ref().is_err() || read.as_ref().is_ok_and(String::is_empty), "{identity:?}: {read:?}");
    }
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_s_files_name_nothing_from_elsewhere() {
    let (_node, address) = node_with_page(Sockets::default(), |_| {}).await;
    let fetch = async |request: &str| {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let request = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        soon("the page", stream.read_to_string(&mut answer)).await.expect("is text");
        answer
    };
    let page = fetch("GET /").await;
    assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{page}");
    assert!(page.contains("x-content-type-options: nosniff"), "{page}");
    let modules = ["page.js", "panel.js", "source.js", "picture.js", "wire.js", "contract.js"];
    for file in modules.iter().chain(&["style.css", "icon.svg"]) {
        let text = fetch(&format!("GET /{file}")).await;
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{file}: {text}");
        let body = text.split_once("\r\n\r\n").expect("has a body").1.replace("http://www.w3.org/2000/svg", "");
        assert!(!body.contains("http://") && !body.contains("https://"), "{file}");
    }
    for (request, status) in [
        ("GET /nothing", "404 Not Found"),
        ("GET /../Cargo.toml", "404 Not Found"),
        ("POST /", "405 Method Not Allowed"),
        ("GET /perceive", "426 Upgrade Required"),
    ] {
        let answer = fetch(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}
