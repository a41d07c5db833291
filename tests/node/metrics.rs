//! Metrics as a scraper gets them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use sam4mllm::pipeline::fake::Script;
use sam4mllm::server::Sockets;
use sam4mllm::server::wire::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{RED, Running, Scene, backend, soon, target};

/// Status line and body of `GET path`.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    soon("the page", stream.read_to_string(&mut answer)).await.expect("is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("has a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// Values by name and labels; checks that every value has a type and every type a value.
fn parse(page: &str) -> HashMap<String, f64> {
    let mut kinds = HashMap::new();
    let mut values = HashMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let family = name.split('{').next().expect("has a name");
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
            assert!(kinds.contains_key(family) || plain.is_some_and(|p| kinds[p] == "histogram"), "{line}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
            assert!(values.insert(name.to_owned(), value).is_none(), "{name} comes twice");
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_are_those_of_the_replies() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let script = Script::default();
    let sockets = Sockets { metrics: Some(listener), ..Sockets::default() };
    let mut node = Running::launch_on(sockets, backend(&script), script, |config| {
        config.node.reground_after = Duration::from_secs(3600);
    })
    .await;
    node.ready().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    stream.set([target("r", "red"), target("g", "green")]).await;
    stream.until_verdict(&scene, "g", Verdict::Absent).await;
    let last = stream.until_verdict(&scene, "r", Verdict::Found).await;
    // Not a frame: it is dropped, and counted.
    let mut bad = scene.frame(last.seq + 1);
    bad.data.truncate(10);
    stream.frame(bad).await;
    stream.refusal().await;
    let counters = stream.exchange(&scene).await.counters.expect("has counters");

    let (status, page) = get(address, "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let values = parse(&page);
    let value = |name: &str| values.get(name).copied().unwrap_or_else(|| panic!("no {name} in {page}"));
    assert_eq!(value("sam4mllm_ready"), 1.0);
    assert_eq!(value("sam4mllm_sessions"), 1.0);
    assert_eq!(value("sam4mllm_frames_received_total"), counters.received as f64);
    assert_eq!(value("sam4mllm_frames_answered_total"), counters.answered as f64);
    assert_eq!(value("sam4mllm_frames_dropped_total{reason=\"undecodable\"}"), 1.0);
    assert_eq!(value("sam4mllm_frames_dropped_total{reason=\"superseded\"}"), 0.0);
    assert_eq!(value("sam4mllm_groundings_total{verdict=\"found\"}"), 1.0);
    assert_eq!(value("sam4mllm_groundings_total{verdict=\"absent\"}"), 1.0);
    assert_eq!(value("sam4mllm_stage_seconds_count{stage=\"ground\"}"), 2.0);
    assert_eq!(value("sam4mllm_stage_seconds_bucket{stage=\"ground\",le=\"+Inf\"}"), 2.0);
    assert_eq!(value("sam4mllm_stage_seconds_count{stage=\"decode\"}"), counters.answered as f64);
    assert_eq!(value("sam4mllm_stage_restarts_total{stage=\"segment\"}"), 0.0);
    assert!(value("sam4mllm_resident_memory_bytes") > 1e6);
    assert!(page.contains("sam4mllm_build_info{version=\""), "{page}");
    assert_eq!(get(address, "/").await.0, "HTTP/1.1 404 Not Found");
    assert_eq!(get(address, "/ready").await, ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned()));

    drop(stream);
    node.ask_to_stop();
    node.ended().await.expect("ends well");
    soon("the end of the page", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Every name that the node tells stands in the list that is shipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_is_documented() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let script = Script::default();
    let sockets = Sockets { metrics: Some(listener), ..Sockets::default() };
    let node = Running::launch_on(sockets, backend(&script), script, |_| {}).await;
    node.ready().await;
    let (_, page) = get(address, "/metrics").await;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("launch/README.md");
    let list = std::fs::read_to_string(path).expect("is shipped");
    let names: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(list.contains(&format!("`{name}`")), "{name} is not in launch/README.md");
    }
}
