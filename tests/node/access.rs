//! Who gets in: TLS, certificates of clients, tokens, the Unix socket.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use sam4mllm::pipeline::fake::Script;
use sam4mllm::server::wire::perception_client::PerceptionClient;
use sam4mllm::server::wire::{self, Verdict};
use sam4mllm::server::{SERVICE, Sockets, Tls, TlsFiles, Tokens, UnixSocket};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::harness::{RED, Running, Scene, Stream, backend, iou, of, soon, target};

pub(crate) const TOKEN: &str = "6f1c0ba3a0b54e5a9b1e0f3c";

pub(crate) fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/tls").join(name)
}

pub(crate) fn tls(client_ca: Option<&str>) -> Tls {
    let files = TlsFiles { certificate: pem("server.pem"), key: pem("server.key"), client_ca: client_ca.map(pem) };
    Tls::load(&files).expect("the files are in order")
}

async fn node_on(sockets: Sockets) -> Running {
    let script = Script::default();
    Running::launch_on(sockets, backend(&script), script, |_| {}).await
}

/// TLS that trusts the root, with the certificate called `identity`, for a protocol.
pub(crate) fn connector(identity: Option<&str>, protocol: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("root.pem")).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("has versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(pem(&format!("{name}.pem"))).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(pem(&format!("{name}.key"))).expect("a key");
            config.with_client_auth_cert(chain, key).expect("they belong together")
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A connection over TLS to `localhost`, with the certificate called `identity`.
async fn connect(address: SocketAddr, identity: Option<&str>) -> Result<Channel, tonic::transport::Error> {
    let connector = connector(identity, "h2");
    let connect = tower::service_fn(move |_: tonic::transport::Uri| {
        let connector = connector.clone();
        async move {
            let name = ServerName::try_from("localhost").expect("a name");
            let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    soon("a connection", Endpoint::from_static("http://localhost").connect_with_connector(connect)).await
}

async fn describe(channel: Channel) -> Result<wire::DescribeResponse, Status> {
    let mut client = PerceptionClient::new(channel);
    Ok(soon("the description", client.describe(wire::DescribeRequest {})).await?.into_inner())
}

async fn until_ready(channel: &Channel) {
    soon("readiness", async {
        while !describe(channel.clone()).await.expect("describes").ready {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_go_over_tls_and_plain_text_does_not() {
    let node = node_on(Sockets { tls: Some(tls(None)), ..Sockets::default() }).await;
    let channel = connect(node.address, None).await.expect("connects");
    until_ready(&channel).await;
    let mut stream = Stream::open_by(PerceptionClient::new(channel)).await.expect("opens");
    let scene = Scene::new().with(RED, 100, 80);
    stream.set([target("r", "red")]).await;
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    assert!(iou(&of(&found, "r").instances[0], &scene.truth(0)) > 0.95);
    let plain = Channel::from_shared(format!("http://{}", node.address)).expect("an address");
    let refused = match soon("an end", plain.connect()).await {
        Ok(channel) => describe(channel).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "plain text was taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_a_certificate_that_the_root_knows() {
    let node = node_on(Sockets { tls: Some(tls(Some("root.pem"))), ..Sockets::default() }).await;
    let known = connect(node.address, Some("client")).await.expect("connects");
    assert_eq!(describe(known).await.expect("is let in").backend, "fake");
    for identity in [None, Some("stranger")] {
        // In TLS 1.3 a client learns of it when it first reads.
        let refused = match connect(node.address, identity).await {
            Ok(channel) => describe(channel).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{identity:?} was let in");
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let load = |certificate: &str, key: &str, client_ca: Option<&str>| {
        let files = TlsFiles { certificate: pem(certificate), key: pem(key), client_ca: client_ca.map(pem) };
        Tls::load(&files).err().map(|e| e.to_string())
    };
    let cases = [
        (load("nowhere.pem", "server.key", None), "nowhere.pem"),
        (load("server.key", "server.key", None), "server.key"),
        (load("server.pem", "client.key", None), "client.key"),
        (load("server.pem", "server.pem", None), "server.pem"),
        (load("server.pem", "server.key", Some("make.sh")), "make.sh"),
    ];
    for (error, name) in cases {
        let error = error.unwrap_or_else(|| panic!("{name} was taken"));
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(load("server.pem", "server.key", Some("root.pem")), None);
}

pub(crate) fn tokens() -> Tokens {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens");
    std::fs::write(&path, format!("planner {TOKEN}\n")).expect("writes");
    Tokens::load(&path).expect("is a list")
}

type Sign = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status>>;
type Signed = PerceptionClient<InterceptedService<Channel, Sign>>;

/// A client that sends `value` as its authorization.
fn signed(channel: Channel, value: &str) -> Signed {
    let value: MetadataValue<_> = value.parse().expect("ascii");
    let sign: Sign = Box::new(move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    });
    PerceptionClient::with_interceptor(channel, sign)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_bring_a_token_and_health_needs_none() {
    let node = node_on(Sockets { tokens: Some(tokens()), ..Sockets::default() }).await;
    let channel = node.channel().await;
    let mut with = signed(channel.clone(), &format!("Bearer {TOKEN}"));
    soon("the description", with.describe(wire::DescribeRequest {})).await.expect("is let in");
    for wrong in ["Bearer", "Bearer 6f1c0ba3a0b54e5a9b1e0f3d", &format!("Basic {TOKEN}"), TOKEN] {
        let mut client = signed(channel.clone(), wrong);
        let refused = soon("a refusal", client.describe(wire::DescribeRequest {})).await.expect_err(wrong);
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(!refused.message().contains("6f1c"), "{refused}");
    }
    assert_eq!(describe(channel.clone()).await.expect_err("no token").code(), Code::Unauthenticated);
    assert_eq!(Stream::open(&node).await.err().map(|s| s.code()), Some(Code::Unauthenticated));
    let asked = tokio_stream::iter([ServerReflectionRequest::default()]);
    let reflection = ServerReflectionClient::new(channel.clone()).server_reflection_info(asked).await;
    assert_eq!(reflection.err().map(|s| s.code()), Some(Code::Unauthenticated));
    let mut health = HealthClient::new(channel);
    soon("health", async {
        let request = HealthCheckRequest { service: SERVICE.into() };
        while health.check(request.clone()).await.expect("answers").into_inner().status() != ServingStatus::Serving {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_is_served_beside_tcp() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.sock");
    // The file of a node that was killed makes way.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    let unix = UnixSocket::bind(&path).expect("binds");
    let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut node = node_on(Sockets { unix: Some(unix), ..Sockets::default() }).await;
    node.ready().await;
    let connect = {
        let path = path.clone();
        tower::service_fn(move |_: tonic::transport::Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        })
    };
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await.expect("connects");
    let mut client = PerceptionClient::new(channel);
    let scene = Scene::new().with(RED, 100, 80);
    let asked = wire::SegmentRequest { frame: Some(scene.frame(1)), command: "red".into(), ..Default::default() };
    let answer = soon("an answer", client.segment(asked)).await.expect("answers").into_inner();
    assert_eq!(answer.result.expect("has a result").verdict(), Verdict::Found);
    assert!(UnixSocket::bind(&path).is_err(), "another node listens there");
    node.ask_to_stop();
    node.ended().await.expect("ends well");
    crate::harness::eventually("the end of the socket's file", || !path.exists()).await;
    std::fs::write(&path, "no socket").expect("writes");
    assert!(UnixSocket::bind(&path).is_err(), "a file of someone else's is not removed");
    assert!(path.exists());
}
