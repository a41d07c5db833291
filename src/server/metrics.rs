//! Metrics for Prometheus: `GET /metrics` over HTTP, on a socket of its own. `launch/README.md` lists the names.
//!
//! Written by hand: the text format is a page, and every value is a counter that the node keeps anyway.
//! Source: the Prometheus text exposition format, version 0.0.4.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Identity;
use super::admission::{Admission, Refusal};
use super::record::Recorder;
use crate::memory::resident_bytes;
use crate::node::{BUCKETS_S, DropReason, GroundingEnd, Node, Readiness, StageName};
use crate::pipeline::Outcome;

/// Connections at a time; a scraper needs one.
const CONNECTIONS: usize = 16;
/// A client that has not sent its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Source: Prometheus text format, "Basic info".
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What is told about.
pub(super) struct Told {
    pub node: Arc<Node>,
    pub admission: Arc<Admission>,
    pub identity: Identity,
    pub recorder: Option<Arc<Recorder>>,
}

/// Answers until it is aborted.
pub(super) async fn serve(listener: TcpListener, told: Told) {
    let (told, places) = (Arc::new(told), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept for metrics failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let told = told.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &told))));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(%error, "metrics connection broke");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, told: &Told) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, text(told)),
        (&Method::GET | &Method::HEAD, "/ready") => ready(&told.node),
        (_, "/metrics" | "/ready") => (StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics, readiness at /ready\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// For balancers that cannot ask `grpc.health.v1`, such as a kubelet where the node takes TLS alone.
fn ready(node: &Node) -> (StatusCode, String) {
    match &*node.readiness().borrow() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
        Readiness::Down(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned()),
    }
}

/// All of it, in a fixed order.
fn text(told: &Told) -> String {
    let (node, stats) = (&told.node, told.node.stats());
    let mut page = Page::default();
    let about = &told.identity;
    page.metric("build_info", "gauge", "What answers.");
    page.value(
        "build_info",
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("bundle", &about.name),
            ("bundle_version", &about.version),
            ("fingerprint", &about.fingerprint),
            ("backend", &about.backend),
        ],
        1,
    );
    let ready = *node.readiness().borrow() == Readiness::Ready;
    page.single("ready", "gauge", "Whether new sessions and calls are taken.", u64::from(ready));
    let (sessions, calls) = node.open_now();
    page.single("sessions", "gauge", "Streams that are open.", sessions as u64);
    page.single("calls", "gauge", "Unary calls in work or waiting.", calls as u64);
    page.single("frames_received_total", "counter", "Frames that came in on streams.", stats.received());
    page.single("frames_answered_total", "counter", "Frames of streams that were answered.", stats.answered());
    page.metric("frames_dropped_total", "counter", "Frames of streams that got no answer.");
    for reason in DropReason::ALL {
        page.value("frames_dropped_total", &[("reason", drop_name(reason))], stats.dropped(reason));
    }
    page.metric("queue_length", "gauge", "What waits: frames and calls for a stage, targets for the language model.");
    for (queue, waiting) in ["frames", "calls", "groundings"].into_iter().zip(stats.waiting()) {
        page.value("queue_length", &[("queue", queue)], waiting);
    }
    page.metric("groundings_total", "counter", "What the language model's side came to.");
    for end in GroundingEnd::ALL {
        page.value("groundings_total", &[("verdict", end_name(end))], stats.groundings(end));
    }
    page.metric("refused_total", "counter", "Streams and unary calls that were refused.");
    for (refusal, name) in Refusal::ALL {
        page.value("refused_total", &[("reason", name)], told.admission.refused(refusal));
    }
    page.metric("stage_restarts_total", "counter", "How often a stage was built anew after it panicked.");
    for stage in [StageName::Ground, StageName::Segment] {
        page.value("stage_restarts_total", &[("stage", stage.as_str())], stats.restarts(stage));
    }
    page.metric("stage_hung", "gauge", "Whether a stage has been at one job for longer than stage_hang_ms.");
    for stage in [StageName::Ground, StageName::Segment] {
        page.value("stage_hung", &[("stage", stage.as_str())], u64::from(stats.hangs(stage)));
    }
    if let Some(recorder) = &told.recorder {
        let what = "Recordings that could not be begun, or had to stop.";
        page.single("recordings_failed_total", "counter", what, recorder.failed());
    }
    #[cfg(feature = "tensorrt")]
    {
        let what = "Computations that could not be captured as a CUDA graph; they are tried again after a while.";
        let failed = crate::engine::tensorrt::failed_captures();
        page.single("cuda_graph_captures_failed_total", "counter", what, failed);
    }
    page.histograms(told);
    if let Some(bytes) = resident_bytes() {
        page.single("resident_memory_bytes", "gauge", "Memory of the process that is in use.", bytes);
    }
    page.0
}

fn drop_name(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Superseded => "superseded",
        DropReason::Undecodable => "undecodable",
        DropReason::Deadline => "deadline",
        DropReason::OutOfOrder => "out_of_order",
        DropReason::Draining => "draining",
        DropReason::Quota => "quota",
    }
}

fn end_name(end: GroundingEnd) -> &'static str {
    match end {
        GroundingEnd::Answered(Outcome::Found) => "found",
        GroundingEnd::Answered(Outcome::Absent) => "absent",
        GroundingEnd::Answered(Outcome::Ambiguous) => "ambiguous",
        GroundingEnd::Answered(Outcome::Unsure) => "unsure",
        GroundingEnd::Failed => "failed",
    }
}

/// A page of metrics; every name gets the prefix `sam4mllm_`.
#[derive(Default)]
struct Page(String);

// Writing to a string does not fail.
impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP sam4mllm_{name} {help}\n# TYPE sam4mllm_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escape(text))).collect();
        let _ = writeln!(self.0, "sam4mllm_{name}{{{}}} {value}", labels.join(","));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.metric(name, kind, help);
        let _ = writeln!(self.0, "sam4mllm_{name} {value}");
    }

    fn histograms(&mut self, told: &Told) {
        self.metric("stage_seconds", "histogram", "How long each step of a frame or a grounding took.");
        for (stage, histogram) in told.node.stats().stages() {
            let mut count = 0;
            let bounds = BUCKETS_S.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, bucket) in bounds.zip(histogram.buckets) {
                count += bucket;
                self.value("stage_seconds_bucket", &[("stage", stage), ("le", &bound)], count);
            }
            let _ = writeln!(self.0, "sam4mllm_stage_seconds_sum{{stage=\"{stage}\"}} {}", histogram.sum_s);
            self.value("stage_seconds_count", &[("stage", stage)], count);
        }
    }
}

/// A label's value: a bundle's name may be anything.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out() {
        let mut page = Page::default();
        page.value("x", &[("name", "a\"} 1\nb\\")], 2);
        assert_eq!(page.0, "sam4mllm_x{name=\"a\\\"} 1\\nb\\\\\"} 2\n");
    }
}
