//! The demo's client: nothing in here knows more than the wire contract.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cli::picture::camera_jpeg;
use crate::client::{Client, Reply, file_frame};
use crate::dataset::{Clip, Expression};
use crate::server::wire::{Frame, FrameResult, Options, Target};

/// How long the node may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One frame's reply.
#[derive(Debug)]
pub struct Answer {
    /// From sending the frame to having its reply.
    pub latency: Duration,
    /// The reply.
    pub result: FrameResult,
}

/// Connects and waits until the node says that it serves.
pub async fn connect(address: SocketAddr) -> anyhow::Result<Client> {
    let client = Client::connect(format!("http://{address}")).await?;
    client.ready(READY_WITHIN).await?;
    Ok(client)
}

/// The id under which command `index` is a target.
pub fn target_id(index: usize) -> String {
    format!("command-{index}")
}

/// Sets the commands as targets and streams the clip, the next frame as soon as the last one is answered.
pub async fn stream(
    mut client: Client,
    clip: &Clip,
    commands: &[Expression],
    mut progress: impl FnMut(f64),
) -> anyhow::Result<Vec<Answer>> {
    let mut stream = client.stream().await?;
    *stream.options() = Options { evidence: true, ..Options::default() };
    let target =
        |(i, c): (usize, &Expression)| Target { target_id: target_id(i), command: c.text.clone(), ..Target::default() };
    stream.set(commands.iter().enumerate().map(target).collect()).await?;
    let mut answers = Vec::with_capacity(clip.frames());
    for number in 0..clip.frames() {
        let frame = frame(number, clip)?;
        let start = Instant::now();
        let seq = stream.frame(frame).await?;
        match stream.reply().await?.context("the node ended the stream")? {
            Reply::Frame(result) => answers.push(Answer { latency: start.elapsed(), result: *result }),
            Reply::Rejected(r) => bail!("frame {seq} was rejected: {}", r.error.unwrap_or_default().message),
            Reply::Answer(_) => bail!("an answer to what nobody asked, instead of frame {seq}"),
        }
        progress(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(answers)
}

fn frame(number: usize, clip: &Clip) -> anyhow::Result<Frame> {
    Ok(Frame {
        // A camera of 30 frames a second.
        stamp_ns: number as i64 * 33_333_333,
        optical_frame: "camera_color_optical_frame".into(),
        ..file_frame("jpeg", camera_jpeg(&clip.frame(number))?)
    })
}
