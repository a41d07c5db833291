//! Spans of a served node, told to a real collector's gRPC service.

#[path = "../served.rs"]
mod served;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use sam4mllm::client::{Client, raw_frame};
use sam4mllm::server::wire;
use served::{PATIENCE, Served};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Hands on what it is told.
struct Collector(Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, Receiver<ExportTraceServiceRequest>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("is bound"));
    let (told, hears) = channel();
    let service = TraceServiceServer::new(Collector(told));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, hears)
}

/// The spans told within [`PATIENCE`] until there is one named `last`, and the service that they are of.
fn spans(hears: &Receiver<ExportTraceServiceRequest>, last: &str) -> (Vec<Span>, Vec<String>) {
    let (mut spans, mut services, end) = (Vec::new(), Vec::new(), Instant::now() + PATIENCE);
    while !spans.iter().any(|span: &Span| span.name == last) {
        let left = end.saturating_duration_since(Instant::now());
        let request = hears.recv_timeout(left).unwrap_or_else(|_| panic!("no span {last:?}, only {spans:?}"));
        for of in request.resource_spans {
            let attributes = of.resource.into_iter().flat_map(|r| r.attributes);
            let names = attributes.filter(|a| a.key == "service.name").filter_map(|a| a.value?.value);
            services.extend(names.filter_map(|v| if let Value::StringValue(name) = v { Some(name) } else { None }));
            spans.extend(of.scope_spans.into_iter().flat_map(|s| s.spans));
        }
    }
    (spans, services)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_hears_of_a_call_and_of_what_each_stage_did_for_it() {
    let (endpoint, hears) = collector().await;
    let node = Served::fake(&["--log-filter", "sam4mllm=debug", "--otlp-endpoint", &endpoint]);
    let red = [205, 25, 35].repeat(64 * 48);
    let mut client = Client::connect(node.url()).await.expect("connects");
    let frame = wire::Frame { seq: 7, ..raw_frame("rgb8", 64, 48, 64 * 3, red) };
    let request = wire::SegmentRequest { frame: Some(frame), command: "the red box".into(), ..Default::default() };
    client.segment(request).await.expect("answers");
    // What is not sent by then is sent before the node ends.
    node.process.signal("TERM");
    let (spans, services) = tokio::task::spawn_blocking(move || spans(&hears, "call")).await.expect("hears");
    assert!(node.process.end().status.success());
    assert!(services.iter().all(|name| name == "sam4mllm") && !services.is_empty(), "{services:?}");
    let call = spans.iter().find(|span| span.name == "call").expect("is there");
    let seq = call.attributes.iter().find(|a| a.key == "seq").and_then(|a| a.value.clone()?.value);
    // Beyond 63 bits there are no numbers in OTLP.
    assert_eq!(seq, Some(Value::StringValue("7".to_owned())));
    for stage in ["ground", "segment"] {
        let span = spans.iter().find(|span| span.name == stage).unwrap_or_else(|| panic!("no {stage:?} in {spans:?}"));
        assert_eq!((&span.trace_id, &span.parent_span_id), (&call.trace_id, &call.span_id), "{stage}");
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
}
