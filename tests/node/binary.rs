//! The binary itself: `serve --backend fake`, signals and exit codes.

use std::process::Command;
use std::time::Duration;

use sam4mllm::server::wire;
use sam4mllm::server::wire::perceive_request::Request;
use sam4mllm::server::wire::perceive_response::Response;
use sam4mllm::server::wire::perception_client::PerceptionClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::harness::{RED, Scene, soon, target};
use crate::served::Served;

#[test]
fn signals_end_it_well_and_stdout_stays_clean() {
    for signal in ["TERM", "INT"] {
        let served = Served::fake(&["--log-format", "json"]);
        assert!(served.address.starts_with("127.0.0.1:") && !served.address.ends_with(":0"), "{}", served.address);
        let address = served.address.clone();
        served.process.signal(signal);
        let output = served.process.end();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{signal}: {log}");
        assert!(output.stdout.is_empty());
        assert!(log.contains(&address), "the address is logged: {log}");
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_in_the_middle_of_a_grounding_ends_it_in_time_and_the_frame_is_answered() {
    let served = Served::fake(&["--fake-ground-ms", "60000", "--grace-s", "2"]);
    let channel = Channel::from_shared(served.url()).expect("an address");
    let mut client = PerceptionClient::new(soon("a connection", channel.connect()).await.expect("connects"));
    soon("readiness", async {
        while !client.describe(wire::DescribeRequest {}).await.expect("describes").into_inner().ready {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let (requests, outgoing) = mpsc::channel(4);
    let opened = soon("a stream", client.perceive(ReceiverStream::new(outgoing))).await;
    let mut replies = opened.expect("opens").into_inner();
    for request in [
        Request::SetTargets(wire::SetTargets { targets: vec![target("r", "red")] }),
        Request::Frame(Scene::new().with(RED, 20, 20).frame(1)),
    ] {
        requests.send(wire::PerceiveRequest { request: Some(request), options: None }).await.expect("goes on");
    }
    // What was promised has come: the frame is answered, and says that nothing is known yet.
    let reply = soon("a reply", replies.message()).await.expect("goes on").expect("is answered");
    let Some(Response::Frame(frame)) = reply.response else { panic!("{reply:?}") };
    assert_eq!((frame.seq, frame.targets[0].verdict()), (1, wire::Verdict::Pending));
    served.process.signal("TERM");
    let end = soon("the end of the stream", replies.message()).await.expect_err("ends");
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end}");
    assert!(served.process.end().status.success());
}

#[test]
fn exit_codes_tell_bad_settings_from_bad_usage() {
    let cases: [(&[&str], i32); 10] = [
        (&["--max-targets", "0"], 64),
        (&["--max-message-mib", "0"], 64),
        (&["--max-message-mib", "4294967295"], 64),
        (&["--window-mib", "0"], 64),
        (&["--max-targets", "many"], 2),
        (&["--listen", "nowhere"], 64),
        // What the fake was not taught, and what nobody is.
        (&["--strategy", "ppg"], 64),
        (&["--strategy", "guess"], 2),
        // An address that is not this machine's.
        (&["--listen", "192.0.2.1:1", "--allow-plaintext", "true"], 1),
        // Others could listen in.
        (&["--listen", "192.0.2.1:1"], 64),
    ];
    for (arguments, code) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
            .args(["serve", "--backend", "fake"])
            .args(arguments)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

/// Resident memory of a process, in MiB.
fn resident_mib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("has a size");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn a_client_that_does_not_read_costs_no_memory() {
    let served = Served::fake(&[]);
    let id = served.process.id();
    let address = served.address.clone();
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut client = PerceptionClient::new(soon("a connection", endpoint.connect()).await.expect("connects"));
    soon("readiness", async {
        while !client.describe(wire::DescribeRequest {}).await.expect("describes").into_inner().ready {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let (requests, outgoing) = mpsc::channel(2);
    let mut replies =
        soon("a stream", client.perceive(ReceiverStream::new(outgoing))).await.expect("opens").into_inner();
    let send = async |request: Request| {
        // With evidence and sixteen targets a reply has 10 kB: few of them fill all that is on the way.
        let options = Some(wire::Options { evidence: true, anytime: true, ..Default::default() });
        let request = wire::PerceiveRequest { request: Some(request), options };
        soon("room for a request", requests.send(request)).await.expect("the stream is open");
    };
    let targets = (0..16).map(|i| target(&i.to_string(), "red")).collect();
    send(Request::SetTargets(wire::SetTargets { targets })).await;
    let scene = Scene::sized(640, 480).with(RED, 100, 80);
    let raw =
        wire::Frame { encoding: "rgb8".into(), width: 640, height: 480, data: scene.rgb().into(), ..scene.frame(0) };
    let frame = |seq: u64| Request::Frame(wire::Frame { seq, stamp_ns: seq as i64, ..raw.clone() });
    // 370 MB in all; a tenth of them to warm up.
    let last = 400;
    for seq in 1..=40 {
        send(frame(seq)).await;
    }
    let before = resident_mib(id);
    for seq in 41..=last {
        send(frame(seq)).await;
    }
    let after = resident_mib(id);
    assert!(after < before + 100, "{before} MiB before 330 MB of frames, {after} MiB after");
    // Whatever was not read was dropped and counted; the newest is still to come.
    let counters = loop {
        let reply = soon("a reply", replies.message()).await.expect("goes on").expect("goes on");
        match reply.response {
            Some(Response::Frame(frame)) if frame.seq == last => break frame.counters.expect("has counters"),
            Some(Response::Frame(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    let dropped: u64 = counters.dropped.iter().map(|d| d.frames).sum();
    assert_eq!((counters.received, counters.answered + counters.waiting + dropped), (last, last), "{counters:?}");
    assert!(counters.answered < last / 2 && counters.dropped.len() == 1, "{counters:?}");
    assert_eq!(counters.dropped[0].reason(), wire::DropReason::Superseded);
}

/// The short form of what `tests/bench/reports/soak.json` is of: cameras and planners that come and go for half a minute.
#[test]
fn a_short_soak_leaves_memory_flat_and_nothing_wrong() {
    let soak = Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
        .args(["bench", "soak", "--backend", "fake", "--minutes", "0.5", "--format", "json"])
        .env_remove("RUST_LOG")
        .output()
        .expect("runs");
    assert!(soak.status.success(), "{}", String::from_utf8_lossy(&soak.stderr));
    let report: serde_json::Value = serde_json::from_slice(&soak.stdout).expect("a report");
    eprintln!("{} {}", report["judgement"], report["tally"]);
    assert_eq!(report["judgement"]["flat"], true);
    for what in ["streams opened", "streams ended well", "frames answered", "targets retargeted", "calls answered"] {
        assert!(report["tally"][what].as_u64().is_some_and(|n| n > 0), "{what}: {}", report["tally"]);
    }
}
