//! `sam4mllm watch`: a node's answers in the terminal, as they come.

mod source;
mod view;

use std::io::{BufRead, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use super::access::AccessArgs;
use crate::client::{Client, Reply, Sender, file_frame};
use crate::server::wire::perceive_request::Request;
use crate::server::wire::{self, Verdict};
use source::{Source, SourceArgs};
use view::View;

/// How long a node may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A frame without an answer by then was dropped; the next one is sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `sam4mllm watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to follow: commands, or NAME=COMMAND. More may be typed while it runs: a command follows, -NAME lets go,
    /// ?COMMAND asks once.
    #[arg(value_name = "COMMAND")]
    commands: Vec<String>,
    /// The node.
    #[arg(long, short, default_value = "http://127.0.0.1:50051", env = "SAM4MLLM_ADDRESS")]
    address: String,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Frames a second at the most.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    fps: f64,
    /// End after so many answered frames; 0 for never.
    #[arg(long, default_value_t = 0)]
    frames: u64,
    /// End once every target has an answer; fails where one has none that can be acted on.
    #[arg(long)]
    once: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= 1000.0);
    rate.ok_or_else(|| "expected frames a second, above 0 and at most 1000".to_owned())
}

/// What was typed, or given as an argument.
#[derive(Debug, PartialEq)]
enum Typed {
    Follow { name: String, command: String },
    Remove(String),
    Ask(String),
}

fn read(line: &str) -> Option<Typed> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix('-') {
        return Some(Typed::Remove(name.trim().to_owned()));
    }
    if let Some(command) = line.strip_prefix('?') {
        return Some(Typed::Ask(command.trim().to_owned()));
    }
    let (name, command) = line.split_once('=').unwrap_or((line, line));
    let (name, command) = (name.trim().to_owned(), command.trim().to_owned());
    (!name.is_empty() && !command.is_empty()).then_some(Typed::Follow { name, command })
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    let source = args.source.open()?;
    let mut commands = Vec::new();
    for text in &args.commands {
        commands.push(read(text).with_context(|| format!("read command {text:?}: it is empty"))?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(watch(&args, source, commands));
    // A read of the standard input that nobody waits for any more.
    runtime.shutdown_background();
    outcome
}

async fn connect(args: &Args) -> anyhow::Result<Client> {
    let access = args.access.read()?;
    let client = Client::connect_with(&args.address, &access).await.with_context(|| args.address.clone())?;
    client.ready(READY_WITHIN).await?;
    Ok(client)
}

async fn watch(args: &Args, mut source: Source, commands: Vec<Typed>) -> anyhow::Result<()> {
    let (mut sender, mut receiver) = connect(args).await?.stream().await?.split();
    sender.options = wire::Options { evidence: true, ..wire::Options::default() };
    let mut view = View::new();
    let mut asked = 0;
    for command in commands {
        say(&sender, command, &mut asked).await?;
    }
    let mut typed = typed(args);
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / args.fps));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Some(jpeg) = source.next().await? {
        pace.tick().await;
        while let Ok(line) = typed.try_recv() {
            if let Some(command) = read(&line) {
                say(&sender, command, &mut asked).await?;
            }
        }
        let sent = Instant::now();
        let seq = sender.frame(file_frame(jpeg.encoding, jpeg.data)).await?;
        loop {
            let Ok(reply) = tokio::time::timeout(PATIENCE, receiver.reply()).await else { break };
            match reply?.context("the node ended the stream")? {
                Reply::Frame(frame) => {
                    view.frame(&frame, sent.elapsed());
                    if done(args, &frame, view.frames()) {
                        return verdict(args, &frame);
                    }
                    if frame.seq >= seq {
                        break;
                    }
                }
                Reply::Rejected(rejected) => {
                    view.say(&format!("refused: {}", rejected.error.unwrap_or_default().message));
                    if rejected.seq == Some(seq) {
                        break;
                    }
                }
                Reply::Answer(answer) => view.answer(&answer),
            }
        }
    }
    if args.once { bail!("the source ended before every target had an answer") } else { Ok(()) }
}

/// Lines that are typed while it runs; none where the standard input is the camera or no terminal.
fn typed(args: &Args) -> mpsc::Receiver<String> {
    let (lines, typed) = mpsc::channel(16);
    if !args.source.takes_stdin() && std::io::stdin().is_terminal() {
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if lines.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    }
    typed
}

async fn say(sender: &Sender, typed: Typed, asked: &mut u64) -> anyhow::Result<()> {
    match typed {
        Typed::Follow { name, command } => sender.add(&name, &command).await?,
        Typed::Remove(name) => sender.remove(&name).await?,
        Typed::Ask(command) => {
            *asked += 1;
            let question_id = format!("{asked}: {}", command.chars().take(40).collect::<String>());
            let question = wire::Question { question_id, command, ..wire::Question::default() };
            sender.request(Request::Question(question)).await?;
        }
    }
    Ok(())
}

fn done(args: &Args, frame: &wire::FrameResult, frames: u64) -> bool {
    let answered = |target: &wire::TargetResult| target.verdict() != Verdict::Pending;
    (args.frames > 0 && frames >= args.frames)
        || (args.once && !frame.targets.is_empty() && frame.targets.iter().all(answered))
}

/// With `--once` the exit code tells whether everything could be answered; "not there" is an answer.
fn verdict(args: &Args, frame: &wire::FrameResult) -> anyhow::Result<()> {
    let bad = |target: &&wire::TargetResult| matches!(target.verdict(), Verdict::Failed | Verdict::Pending);
    match frame.targets.iter().find(bad) {
        Some(target) if args.once => {
            let why = target.error.clone().unwrap_or_default().message;
            bail!("target {:?} has no answer: {why}", target.target_id)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let follow = |name: &str, command: &str| Typed::Follow { name: name.into(), command: command.into() };
        let cases = [
            ("the red mug", Some(follow("the red mug", "the red mug"))),
            (" mug = the red mug ", Some(follow("mug", "the red mug"))),
            ("-mug", Some(Typed::Remove("mug".into()))),
            ("? the mug", Some(Typed::Ask("the mug".into()))),
            ("", None),
            ("mug=", None),
            ("=mug", None),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line), expected, "{line:?}");
        }
    }
}
