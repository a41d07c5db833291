//! What `watch` shows: a table that stands still in a terminal, lines where something else reads.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use crate::cli::quantile;
use crate::client::{drop_word, origin_word, verdict_word};
use crate::server::wire;

/// Latencies that quantiles are taken over, and times that the rate is.
const KEPT: usize = 200;
/// Messages that stay below the table.
const MESSAGES: usize = 5;

pub struct View {
    terminal: bool,
    frames: u64,
    latencies_ms: Vec<f64>,
    times: Vec<Instant>,
    messages: Vec<String>,
    /// Lines of the table that stands there.
    drawn: usize,
    /// What was said last of each target.
    said: HashMap<String, String>,
}

impl View {
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            terminal,
            frames: 0,
            latencies_ms: Vec::new(),
            times: Vec::new(),
            messages: Vec::new(),
            drawn: 0,
            said: HashMap::new(),
        }
    }

    /// Frames that were answered.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Something besides the answers.
    pub fn say(&mut self, message: &str) {
        if !self.terminal {
            eprintln!("{}", printable(message));
            return;
        }
        self.messages.push(printable(message));
        let over = self.messages.len().saturating_sub(MESSAGES);
        self.messages.drain(..over);
    }

    /// The answer to a question.
    pub fn answer(&mut self, answer: &wire::Answer) {
        let said = match &answer.outcome {
            Some(wire::answer::Outcome::Response(response)) => {
                let result = response.result.clone().unwrap_or_default();
                format!("{} {:.2}", verdict_word(result.verdict()), result.confidence)
            }
            Some(wire::answer::Outcome::Error(error)) => error.message.clone(),
            None => "no answer".to_owned(),
        };
        let line = format!("asked {} {said}", answer.question_id);
        if self.terminal { self.say(&line) } else { println!("{}", printable(&line)) }
    }

    /// A frame's answer, which took so long.
    pub fn frame(&mut self, frame: &wire::FrameResult, latency: Duration) {
        self.frames += 1;
        self.latencies_ms.push(latency.as_secs_f64() * 1e3);
        self.times.push(Instant::now());
        let over = self.latencies_ms.len().saturating_sub(KEPT);
        self.latencies_ms.drain(..over);
        self.times.drain(..over);
        if self.terminal { self.draw(frame) } else { self.lines(frame, latency) }
    }

    /// A line for each target whose verdict is another than before.
    fn lines(&mut self, frame: &wire::FrameResult, latency: Duration) {
        for target in &frame.targets {
            let [name, verdict, confidence, origin, age, instances] = row(target);
            if self.said.insert(name.clone(), verdict.clone()).as_ref() != Some(&verdict) {
                let ms = latency.as_secs_f64() * 1e3;
                println!("{}\t{name}\t{verdict}\t{confidence}\t{origin}\t{age}\t{instances}\t{ms:.1} ms", frame.seq);
            }
        }
    }

    fn draw(&mut self, frame: &wire::FrameResult) {
        let mut table = Table::new();
        let header = ["target", "verdict", "confidence", "origin", "grounded", "instances"];
        table.load_style(UTF8_FULL_CONDENSED).set_header(header);
        for target in &frame.targets {
            table.add_row(row(target));
        }
        let text = format!("{table}\n{}\n{}", self.figures(frame), self.messages.join("\n"));
        let mut out = std::io::stdout().lock();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A\r\x1b[J", self.drawn);
        }
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
        self.drawn = text.lines().count().max(1) + usize::from(text.ends_with('\n'));
    }

    fn figures(&self, frame: &wire::FrameResult) -> String {
        let mut sorted = self.latencies_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |q| quantile(&sorted, q).unwrap_or_default();
        let span = self.times.first().zip(self.times.last()).map_or(0.0, |(a, b)| (*b - *a).as_secs_f64());
        let rate = if span > 0.0 { (self.times.len() - 1) as f64 / span } else { 0.0 };
        let counters = frame.counters.clone().unwrap_or_default();
        let word = |d: &wire::Dropped| format!("{} {}", d.frames, drop_word(d.reason()).to_lowercase());
        let drops: Vec<String> = counters.dropped.iter().map(word).collect();
        let drops = if drops.is_empty() { "0".to_owned() } else { drops.join(", ") };
        format!(
            "frame {}, {rate:.1} frames a second, latency p50 {:.0} ms, p99 {:.0} ms, dropped {drops}",
            frame.seq,
            at(0.5),
            at(0.99)
        )
    }
}

fn row(target: &wire::TargetResult) -> [String; 6] {
    let first = target.instances.first();
    let origin = first.map_or("", |i| origin_word(i.origin()));
    let age = first.map_or(String::new(), |i| format!("{} ms ago", i.grounded_age_ms));
    [
        printable(&target.target_id),
        verdict_word(target.verdict()).to_owned(),
        format!("{:.2}", target.confidence),
        origin.to_owned(),
        age,
        target.instances.len().to_string(),
    ]
}

/// What a node says is not to move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
