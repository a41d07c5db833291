//! `cargo bench --bench frames`: what raw frames cost. Prints milliseconds for a megapixel of each encoding, and how
//! long a raw 1080p frame takes over the loopback with HTTP/2's usual windows against the node's.

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use sam4mllm::frame::{Encoded, Encoding, FrameLimits, Layout, decode};
use sam4mllm::node::Stages;
use sam4mllm::pipeline::Strategy;
use sam4mllm::pipeline::fake::{FakeGround, FakeSegment, Script};
use sam4mllm::server::wire::perceive_request::Request;
use sam4mllm::server::wire::perception_client::PerceptionClient;
use sam4mllm::server::{Backend, Identity, Server, ServerConfig, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const SIZE: (u32, u32) = (1920, 1080);
const WARM_UP: usize = 5;
const RUNS: usize = 40;

/// Milliseconds: the fastest, the median and the slowest.
fn quantiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    [times[0], times[times.len() / 2], times[times.len() - 1]].map(|t| t.as_secs_f64() * 1e3)
}

fn conversions() {
    let (width, height) = SIZE;
    let megapixels = f64::from(width * height) * 1e-6;
    println!("decode to RGB, {width}x{height}, n = {RUNS}: ms for a megapixel (fastest, median, slowest)");
    for encoding in Encoding::ALL.into_iter().filter(|e| !e.is_file()) {
        let layout = Layout::packed(width, height);
        // The length that fits: from a byte a pixel to four.
        let bytes = [8usize, 12, 16, 24, 32].map(|bits| width as usize * height as usize * bits / 8);
        let noise: Vec<u8> = (0..bytes[4]).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
        let fits =
            |n: &usize| decode(&Encoded { encoding, layout, data: &noise[..*n] }, FrameLimits::default()).is_ok();
        let Some(length) = bytes.into_iter().find(fits) else { continue };
        let frame = Encoded { encoding, layout, data: &noise[..length] };
        let mut times = Vec::new();
        for run in 0..WARM_UP + RUNS {
            let start = Instant::now();
            let image = std::hint::black_box(decode(std::hint::black_box(&frame), FrameLimits::default()));
            if run >= WARM_UP {
                times.push(start.elapsed());
            }
            drop(image);
        }
        let [least, median, most] = quantiles(times).map(|ms| ms / megapixels);
        println!("  {:14} {least:7.3} {median:7.3} {most:7.3}", encoding.name());
    }
}

/// A node, and a stream to it.
struct Link {
    requests: mpsc::Sender<wire::PerceiveRequest>,
    replies: Streaming<wire::PerceiveResponse>,
}

async fn link(window_bytes: u32, http2_frame_bytes: u32) -> Result<Link, Box<dyn std::error::Error>> {
    let script = Script::default();
    let (ground, segment) = (script.ground.clone(), script.segment.clone());
    let backend = Backend {
        identity: Identity::default(),
        stages: Stages {
            ground: Box::new(move || Ok(Box::new(FakeGround::new(ground.clone())))),
            segment: Box::new(move || Ok(Box::new(FakeSegment::new(segment.clone())))),
            strategies: FakeGround::strategies(Strategy::Box)?,
            min_mask_score: 0.4,
            stream: sam4mllm::engine::bundle::StreamThresholds::NONE,
            calibration: sam4mllm::engine::bundle::Calibration::IDENTITY,
        },
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let config = ServerConfig { window_bytes, http2_frame_bytes, ..ServerConfig::default() };
    let server = Server::build(config, listener, backend).await?;
    let address = server.address()?;
    tokio::spawn(server.run(std::future::pending()));
    let mut client = PerceptionClient::connect(format!("http://{address}")).await?;
    while !client.describe(wire::DescribeRequest {}).await?.into_inner().ready {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (requests, outgoing) = mpsc::channel(1);
    let replies = client.perceive(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok(Link { requests, replies })
}

async fn windows() -> Result<(), Box<dyn std::error::Error>> {
    let ours = ServerConfig::default();
    let settings = [
        ("HTTP/2's defaults, 64 KiB windows and 16 KiB frames", 1 << 16, 1 << 14),
        ("hyper's defaults, 1 MiB windows and 16 KiB frames", 1 << 20, 1 << 14),
        ("the node's", ours.window_bytes, ours.http2_frame_bytes),
    ];
    let mut links = Vec::new();
    for (_, window, frame) in settings {
        links.push((link(window, frame).await?, Vec::new()));
    }
    let data = bytes::Bytes::from(vec![90; SIZE.0 as usize * SIZE.1 as usize * 3]);
    for run in 0..WARM_UP + RUNS {
        // In turns, so that whatever else the machine does hits all alike.
        for (link, times) in &mut links {
            let frame = wire::Frame {
                seq: run as u64 + 1,
                encoding: "rgb8".into(),
                width: SIZE.0,
                height: SIZE.1,
                data: data.clone(),
                ..wire::Frame::default()
            };
            let start = Instant::now();
            let request = wire::PerceiveRequest { request: Some(Request::Frame(frame)), options: None };
            link.requests.send(request).await?;
            link.replies.message().await?.ok_or("the stream ended")?;
            if run >= WARM_UP {
                times.push(start.elapsed());
            }
        }
    }
    println!(
        "raw rgb8 {}x{} to the node and its reply back, n = {RUNS}: ms (fastest, median, slowest)",
        SIZE.0, SIZE.1
    );
    let all: Vec<[f64; 3]> = links.into_iter().map(|(_, times)| quantiles(times)).collect();
    for ((name, ..), [least, median, most]) in settings.iter().zip(&all) {
        let ratio = median / all[2][1];
        println!("  {name}: {least:.2} {median:.2} {most:.2}, {ratio:.2} of the node's median");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    conversions();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(windows())
}
