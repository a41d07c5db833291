//! Streams recorded over a real socket, and replayed without one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sam4mllm::pipeline::Drafting;
use sam4mllm::pipeline::fake::Script;
use sam4mllm::server::wire::perceive_response::Response;
use sam4mllm::server::wire::perception_client::PerceptionClient;
use sam4mllm::server::wire::{CountHint, FrameResult, Verdict};
use sam4mllm::server::{Backend, RecordConfig, Recording, RecordingErrorKind, Report, replay};
use sam4mllm::server::{ServerConfig, Sockets};
use tokio::net::TcpListener;

use crate::harness::{BLUE, GREEN, RED, Running, Scene, Stream, backend, eventually, of, soon, target};
use crate::metrics;
use crate::served::Served;

fn recording_to(folder: &Path, max_bytes: u64) -> impl FnOnce(&mut ServerConfig) + use<> {
    let folder = folder.to_owned();
    move |config| config.record = Some(RecordConfig { folder, max_bytes, draft: Drafting::default() })
}

/// The recordings in a folder, the first stream's first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("is there");
    let mut files: Vec<_> = entries.map(|e| e.expect("is readable").path()).collect();
    files.sort_by_key(|f| f.to_string_lossy().rsplit('-').next().map(str::to_owned));
    files
}

async fn replayed(file: &Path, backend: Backend) -> Report {
    let recording = Recording::open(file).expect("is a recording");
    let report = tokio::task::spawn_blocking(move || replay(recording, backend));
    soon("the replay", report).await.expect("does not panic").expect("can be replayed")
}

/// A box that goes across the picture, passes behind another one's place and leaves, with one that stays.
fn scene(step: u32) -> Scene {
    let scene = Scene::new().with(BLUE, 20, 20);
    if (12..18).contains(&step) { scene } else { scene.with(RED, 10 + 9 * step, 120) }
}

/// Reads on until a reply to a frame `holds`; answers and refusals may come between.
async fn read_until(stream: &mut Stream, holds: impl Fn(&FrameResult) -> bool) {
    loop {
        match stream.message().await.expect("goes on").expect("goes on") {
            Response::Frame(frame) if holds(&frame) => return,
            _ => {}
        }
    }
}

/// Shows the scene until the target has masks.
async fn find(stream: &mut Stream, scene: &Scene, id: &str) {
    let mut found = false;
    while !found {
        let seq = stream.show(scene).await;
        let seen = std::cell::Cell::new(false);
        read_until(stream, |frame| {
            seen.set(frame.targets.iter().any(|t| t.target_id == id && t.verdict() == Verdict::Found));
            frame.seq >= seq
        })
        .await;
        found = seen.get();
    }
}

/// Has frames dropped for newer ones, whatever the machine does.
async fn flood(stream: &mut Stream, script: &Script) {
    script.segment.gate.shut();
    for step in 0..5 {
        stream.show(&scene(step)).await;
    }
    stream.remove("no such target").await;
    while !matches!(stream.message().await.expect("goes on").expect("goes on"), Response::Rejected(_)) {}
    script.segment.gate.open();
    let drops = |f: &FrameResult| f.counters.as_ref().is_some_and(|c| !c.dropped.is_empty());
    read_until(stream, drops).await;
}

/// Everything that a stream can do, with the timing left to chance.
async fn busy_stream(stream: &mut Stream, script: &Script) {
    stream.options.evidence = true;
    stream.set([target("r", "the red box"), target("b", "blue"), target("bad", "")]).await;
    for step in 0..30 {
        match step {
            2 => find(stream, &scene(step), "r").await,
            3 => find(stream, &scene(step), "b").await,
            4 => stream.rename("b", "blue one").await,
            6 => stream.pause("blue one").await,
            9 => stream.resume("blue one").await,
            10 => find(stream, &scene(step), "blue one").await,
            11 => stream.add(target("r", "red")).await,
            13 => stream.reground("r").await,
            15 => script.segment.fail(1),
            16 => stream.question("q", "green", CountHint::One).await,
            19 => find(stream, &scene(step), "r").await,
            20 => script.ground.fail(1),
            21 => stream.reground("r").await,
            22 => flood(stream, script).await,
            24 => stream.options.anytime = true,
            25 => stream.add(target("g", "green")).await,
            28 => find(stream, &scene(step).with(GREEN, 200, 20), "g").await,
            _ => {}
        }
        let shown = if step < 25 { scene(step) } else { scene(step).with(GREEN, 200, 20) };
        let seq = stream.show(&shown).await;
        // Some frames are waited for, others come when they come.
        if step % 3 == 0 {
            read_until(stream, |frame| frame.seq >= seq).await;
        }
    }
    stream.close();
    while stream.message().await.expect("ends well").is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_gives_the_same_bytes_however_fast_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Running::start_with(|config| {
        config.node.reground_after = Duration::from_millis(40);
        recording_to(folder.path(), u64::MAX)(config);
    })
    .await;
    node.script.ground.set_delay(Duration::from_millis(20));
    node.script.segment.set_delay(Duration::from_millis(3));
    for _ in 0..2 {
        let script = node.script.clone();
        busy_stream(&mut node.stream().await, &script).await;
    }
    node.ask_to_stop();
    node.ended().await.expect("ends well");
    let files = files(folder.path());
    assert_eq!(files.len(), 2, "one a stream");
    for file in &files {
        let report = replayed(file, backend(&Script::default())).await;
        assert!(report.same_provenance() && report.damage.is_none(), "{report:?}");
        assert_eq!(report.changes, [], "{file:?}");
        // It is no recording of nothing.
        assert!(report.replies > 12 && report.replies == report.identical, "{report:?}");
        for id in ["r", "b", "blue one", "g"] {
            assert!(report.targets[id].masked > 0 && report.targets[id].min_iou == Some(1.0), "{id}: {report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_build_gives_a_report_that_names_what_has_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Running::start_with(|config| {
        config.node.reground_after = Duration::from_secs(3600);
        recording_to(folder.path(), u64::MAX)(config);
    })
    .await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red"), target("b", "blue")]).await;
    stream.until_verdict(&scene(0), "r", Verdict::Found).await;
    let found = stream.until_verdict(&scene(0), "b", Verdict::Found).await;
    stream.close();
    while stream.message().await.expect("ends well").is_some() {}
    node.ask_to_stop();
    node.ended().await.expect("ends well");
    let file = files(folder.path()).remove(0);
    // A segmenter that hardly believes in its masks.
    let changed = Script::default();
    changed.segment.doubt(true);
    let mut other = backend(&changed);
    other.identity.fingerprint = "f01".into();
    let report = replayed(&file, other).await;
    assert!(!report.same_provenance());
    let place = format!("frame {}", found.seq);
    let change = report.changes.iter().find(|c| c.place == place && c.target == "b").expect("is named");
    assert_eq!(change.verdicts, Some(("found".into(), "unsure".into())), "{change:?}");
    assert_eq!(of(&found, "b").verdict(), Verdict::Found);
    assert!(report.targets["b"].verdict_changes > 0 && report.targets["b"].changed > 0, "{report:?}");
    assert!(report.identical < report.replies);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_has_to_stop_is_counted_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let script = Script::default();
    let sockets = Sockets { metrics: Some(listener), ..Sockets::default() };
    let node = Running::launch_on(sockets, backend(&script), script, recording_to(folder.path(), 40_000)).await;
    node.ready().await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let failed = async |times: u32| {
        let (_, page) = metrics::get(address, "/metrics").await;
        page.lines().any(|line| line == format!("sam4mllm_recordings_failed_total {times}"))
    };
    soon("the recording's end", async {
        while !failed(1).await {
            stream.exchange(&scene(3)).await;
        }
    })
    .await;
    // Frames are answered as before.
    stream.until_verdict(&scene(3), "r", Verdict::Found).await;
    // A folder that is gone is no reason to refuse a stream either.
    std::fs::remove_dir_all(folder.path()).expect("is removed");
    node.stream().await.exchange(&scene(1)).await;
    soon("the other recording's end", async { while !failed(2).await {} }).await;
}

/// The binary records, replays and says what is wrong with a file.
#[test]
fn the_command_replays_and_names_the_place_of_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let recordings = folder.path().join("recordings");
    let served = Served::fake(&["--record", &recordings.display().to_string()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    runtime.block_on(async {
        let channel = tonic::transport::Channel::from_shared(served.url()).expect("an address");
        let channel = soon("a connection", channel.connect()).await.expect("connects");
        let client = PerceptionClient::new(channel);
        let mut stream = soon("a node that is ready", async {
            loop {
                if let Ok(stream) = Stream::open_by(client.clone()).await {
                    return stream;
                }
            }
        })
        .await;
        stream.set([target("r", "red")]).await;
        stream.until_verdict(&scene(2), "r", Verdict::Found).await;
        // Left open: the shutdown ends the recording.
        served.process.signal("TERM");
        while let Ok(Some(_)) = stream.message().await {}
    });
    let output = served.process.end();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Streams that were refused, for the node was starting, leave no file.
    let [file] = &files(&recordings)[..] else { panic!("one recording") };
    let run = |file: &Path, extra: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sam4mllm")).arg("replay").arg(file).args(extra).output();
        let output = output.expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = run(file, &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("replies are the same") && out.contains("│ r "), "{out}");
    let (code, out, err) = run(file, &["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("is JSON");
    assert_eq!(
        (code, &json["identical"], &json["changes"]),
        (Some(0), &json["replies"], &serde_json::json!([])),
        "{err}"
    );
    let bytes = std::fs::read(file).expect("is readable");
    let cut = folder.path().join("cut.mcap");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("writes");
    let (code, _, err) = run(&cut, &[]);
    let place = format!("near byte {}", bytes.len() / 2);
    assert!(code == Some(1) && err.contains("cut.mcap") && err.contains(&place), "{err}");
    let other = folder.path().join("other.mcap");
    std::fs::write(&other, "no recording at all").expect("writes");
    assert_eq!(Recording::open(&other).err().map(|e| e.kind()), Some(RecordingErrorKind::Foreign));
    assert_eq!(run(&other, &[]).0, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_cut_off_leaves_a_recording_that_can_be_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::start_with(recording_to(folder.path(), u64::MAX)).await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(&scene(2), "r", Verdict::Found).await;
    for step in 0..5 {
        stream.show(&scene(step)).await;
    }
    drop(stream);
    eventually("a recording", || !files(folder.path()).is_empty()).await;
    let file = files(folder.path()).remove(0);
    // The end of the file is written when the stream is over.
    let whole = || {
        let Ok(mut recording) = Recording::open(&file) else { return false };
        while let Ok(Some(_)) = recording.next_entry() {}
        std::fs::read(&file).is_ok_and(|bytes| bytes.ends_with(b"\x89MCAP0\r\n") && bytes.len() > 100)
    };
    eventually("the end of the recording", whole).await;
    let report = replayed(&file, backend(&Script::default())).await;
    assert!(report.damage.is_none() && report.changes.is_empty(), "{report:?}");
}
