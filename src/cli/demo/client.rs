//! The demo's client: nothing in here knows more than the wire contract.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jpeg_encoder::{ColorType, Encoder};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::dataset::{Clip, Expression, Scene};
use crate::server::wire::perceive_request::Request;
use crate::server::wire::perceive_response::Response;
use crate::server::wire::perception_client::PerceptionClient;
use crate::server::wire::{Frame, FrameResult, Options, PerceiveRequest, SetTargets, Target};

/// A camera's quality.
const JPEG_QUALITY: u8 = 90;
/// How long the node may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// One frame's reply.
#[derive(Debug)]
pub struct Answer {
    /// From sending the frame to having its reply.
    pub latency: Duration,
    /// The reply.
    pub result: FrameResult,
}

/// Connects and waits until the node says that it serves.
pub async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await.context("connect")?;
    let mut health = HealthClient::new(channel.clone());
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let request = HealthCheckRequest { service: String::new() };
        let status = health.check(request).await.context("ask for the node's health")?.into_inner().status();
        if status == ServingStatus::Serving {
            return Ok(channel);
        }
        if Instant::now() > deadline {
            bail!("the node was not ready within {READY_WITHIN:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The id under which command `index` is a target.
pub fn target_id(index: usize) -> String {
    format!("command-{index}")
}

/// Sets the commands as targets and streams the clip, the next frame as soon as the last one is answered.
pub async fn stream(
    channel: Channel,
    clip: &Clip,
    commands: &[Expression],
    mut progress: impl FnMut(f64),
) -> anyhow::Result<Vec<Answer>> {
    let mut client = PerceptionClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (requests, receiver) = mpsc::channel(4);
    let targets = commands.iter().enumerate();
    let targets = targets
        .map(|(i, c)| Target { target_id: target_id(i), command: c.text.clone(), ..Target::default() })
        .collect();
    requests.send(request(Request::SetTargets(SetTargets { targets }))).await?;
    let mut replies = client.perceive(ReceiverStream::new(receiver)).await?.into_inner();
    let mut answers = Vec::with_capacity(clip.frames());
    for seq in 0..clip.frames() {
        let data = jpeg(&clip.frame(seq))?;
        let start = Instant::now();
        requests.send(request(Request::Frame(frame(seq as u64, clip, data)))).await?;
        let reply = replies.message().await?.context("the node ended the stream")?;
        match reply.response {
            Some(Response::Frame(result)) => answers.push(Answer { latency: start.elapsed(), result }),
            Some(Response::Rejected(r)) => bail!("frame {seq} was rejected: {}", r.error.unwrap_or_default().message),
            Some(Response::Answer(_)) | None => bail!("an odd reply to frame {seq}"),
        }
        progress(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(answers)
}

fn request(request: Request) -> PerceiveRequest {
    PerceiveRequest { request: Some(request), options: Some(Options { evidence: true, ..Options::default() }) }
}

fn frame(seq: u64, clip: &Clip, data: Vec<u8>) -> Frame {
    Frame {
        seq,
        // A camera of 30 frames a second.
        stamp_ns: seq as i64 * 33_333_333,
        optical_frame: "camera_color_optical_frame".into(),
        width: clip.size().width,
        height: clip.size().height,
        encoding: "jpeg".into(),
        data,
        ..Frame::default()
    }
}

fn jpeg(scene: &Scene) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let (w, h) = (u16::try_from(scene.size.width)?, u16::try_from(scene.size.height)?);
    Encoder::new(&mut out, JPEG_QUALITY).encode(&scene.rgb, w, h, ColorType::Rgb)?;
    Ok(out)
}
