//! The page in a real browser: Chromium without a window, with a file for a camera, driven over its DevTools protocol.
//!
//! Where there is no Chromium these tests say that they were skipped; `tests/clients/web/setup.sh` installs one.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sam4mllm::dataset::{Assets, Clip, ClipOptions, Split};
use sam4mllm::geometry::Size;
use sam4mllm::mask::{Mask, Rle};
use sam4mllm::server::wire::perceive_request::Request;
use sam4mllm::server::wire::perceive_response::Response;
use sam4mllm::server::wire::{self, Verdict};
use sam4mllm::server::{Sockets, wire::mask::Data};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::access::{TOKEN, tokens};
use crate::harness::{BLUE, RED, Scene, soon};
use crate::web::node_with_page;

/// A page may take this long on a machine with other work: Chromium alone takes seconds to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command that starts a browser, or `None` after saying so.
fn chromium() -> Option<&'static str> {
    let known = ["chromium", "chromium-headless-shell", "google-chrome"];
    let there = |name: &&str| {
        let outcome = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        outcome.is_ok_and(|status| status.success())
    };
    let found = known.into_iter().find(there);
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: 1 test, no Chromium (run tests/clients/web/setup.sh)");
    }
    found
}

/// One tab of a browser of its own.
pub(crate) struct Tab {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    session: Value,
    calls: u64,
    /// What the browser complained of.
    faults: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Drop for Tab {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tab {
    /// Opens `url`; `film` is what its camera sees, JPEG after JPEG.
    async fn open(url: &str, film: &[Vec<u8>]) -> Option<Self> {
        let program = chromium()?;
        let folder = tempfile::tempdir().expect("a folder");
        let camera = folder.path().join("camera.mjpeg");
        std::fs::write(&camera, film.concat()).expect("writes");
        let profile = folder.path().join("profile");
        let child = Command::new(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-port=0", "--use-fake-device-for-media-stream", "--hide-scrollbars"])
            .arg("--use-fake-ui-for-media-stream")
            .arg(format!("--use-file-for-fake-video-capture={}", camera.display()))
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let socket = connect(&profile.join("DevToolsActivePort")).await;
        let mut tab = Self { child, socket, session: Value::Null, calls: 0, faults: Vec::new(), _folder: folder };
        let target = tab.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        tab.session = tab.call("Target.attachToTarget", attach).await["sessionId"].clone();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            tab.call(domain, json!({})).await;
        }
        tab.call("Page.navigate", json!({ "url": url })).await;
        tab.until("document.readyState === 'complete'").await;
        Some(tab)
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.socket.send(Message::text(message.to_string())).await.expect("is open");
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("answers in time");
            let Ok(Message::Text(text)) = heard.expect("goes on") else { continue };
            let heard: Value = serde_json::from_str(&text).expect("is JSON");
            if heard["id"] == json!(self.calls) {
                assert!(heard["error"].is_null(), "{method}: {heard}");
                return heard["result"].clone();
            }
            let entry = &heard["params"]["entry"];
            match heard["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.faults.push(heard["params"].to_string()),
                Some("Log.entryAdded") if entry["level"] == "error" => self.faults.push(entry.to_string()),
                _ => {}
            }
        }
    }

    /// What a script comes to; promises are waited for.
    async fn run(&mut self, script: &str) -> Value {
        let asked = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let outcome = self.call("Runtime.evaluate", asked).await;
        assert!(outcome["exceptionDetails"].is_null(), "{script}: {outcome}");
        outcome["result"]["value"].clone()
    }

    /// Waits until a script comes to `true`.
    async fn until(&mut self, script: &str) {
        let start = std::time::Instant::now();
        while self.run(script).await != json!(true) {
            if start.elapsed() > PATIENCE {
                let page = self.run("document.body.innerText").await;
                panic!("waited too long for {script}; the page says {page}; faults: {:?}", self.faults);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Types a command and presses one of the buttons.
    async fn type_command(&mut self, text: &str, button: &str) {
        let text = json!(text);
        let script = format!(
            "document.getElementById('text').value = {text};
             document.querySelector('#command button[value={button}]').click()"
        );
        self.run(&script).await;
    }

    /// Waits until the target called `name` has the verdict.
    async fn until_verdict(&mut self, name: &str, verdict: &str) {
        let script = format!(
            "[...document.querySelectorAll('.target')].some((card) =>
               card.querySelector('.name').textContent === '{name}' &&
               card.querySelector('.verdict').textContent === '{verdict}')"
        );
        self.until(&script).await;
    }

    /// Presses a button on a target's card.
    async fn press(&mut self, name: &str, button: &str) {
        let script = format!(
            "[...document.querySelectorAll('.target')].find((card) => card.querySelector('.name').textContent === '{name}')
               .querySelectorAll('button').forEach((one) => one.textContent === '{button}' && one.click())"
        );
        self.run(&script).await;
    }

    fn assert_no_faults(&self) {
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
    }
}

/// Connects to a browser once it has written where it listens.
async fn connect(file: &Path) -> WebSocketStream<TcpStream> {
    let start = std::time::Instant::now();
    loop {
        let said = std::fs::read_to_string(file).unwrap_or_default();
        if let Some((port, path)) = said.split_once('\n') {
            let (port, path) = (port.trim(), path.trim());
            if let Ok(stream) = TcpStream::connect(format!("127.0.0.1:{port}")).await {
                let url = format!("ws://127.0.0.1:{port}{path}");
                return tokio_tungstenite::client_async(url, stream).await.expect("opens").0;
            }
        }
        assert!(start.elapsed() < PATIENCE, "the browser does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Messages with every kind of field: at its default, at its ends, in a oneof, packed, repeated, nested.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let request = |request| wire::PerceiveRequest { request: Some(request), options: None }.encode_to_vec();
    let frame = wire::Frame {
        seq: u64::MAX,
        stamp_ns: i64::MIN,
        optical_frame: "camera \u{1f916} ä".into(),
        width: u32::MAX,
        data: (0..=255).cycle().take(70_000).collect(),
        full_range: true,
        encoding_id: 7,
        intrinsics: Some(wire::Intrinsics { fx: 1e-300, fy: -0.5, distortion: vec![0.1, -2.0], ..Default::default() }),
        ..Default::default()
    };
    let instance = wire::Instance {
        instance_id: 1 << 53 | 1,
        mask: Some(wire::Mask { width: 3, height: 2, data: Some(Data::CocoRle(String::new())) }),
        r#box: Some(wire::Box { x1: 0.5, y1: -1.25, x2: f32::MAX, y2: f32::MIN_POSITIVE }),
        mask_score: 0.987_654_3,
        evidence: Some(wire::InstanceEvidence {
            proposal: Some(wire::Box::default()),
            points: vec![wire::Point::default(), wire::Point { x: 1.0, y: 2.0, p_yes: 0.25, label: 3 }],
        }),
        ..Default::default()
    };
    let target = wire::TargetResult {
        target_id: "it".into(),
        verdict: Verdict::Ambiguous.into(),
        instances: vec![instance.clone(), wire::Instance::default()],
        proposals: vec![wire::Box::default()],
        partial: true,
        ..Default::default()
    };
    let counters = wire::Counters {
        received: 300,
        dropped: vec![wire::Dropped { reason: 1, frames: 127 }, wire::Dropped { reason: 6, frames: 128 }],
        ..Default::default()
    };
    let answered = wire::FrameResult {
        sent_ns: 1_764_000_000_123_456_789,
        targets: vec![target],
        counters: Some(counters),
        ..Default::default()
    };
    let reply = |response| wire::PerceiveResponse { response: Some(response) }.encode_to_vec();
    let rejected = wire::Rejected {
        seq: Some(0),
        target_id: Some(String::new()),
        error: Some(wire::Error { code: 6, message: "m".into() }),
    };
    let told = wire::DescribeResponse {
        strategies: vec![1, 3, 300],
        encodings: vec!["jpeg".into(), String::new()],
        ..Default::default()
    };
    vec![
        ("PerceiveRequest", request(Request::Frame(frame))),
        ("PerceiveRequest", request(Request::Frame(wire::Frame::default()))),
        (
            "PerceiveRequest",
            request(Request::SetTargets(wire::SetTargets { targets: vec![wire::Target::default(); 2] })),
        ),
        ("PerceiveRequest", Vec::new()),
        ("PerceiveResponse", reply(Response::Frame(answered))),
        ("PerceiveResponse", reply(Response::Rejected(rejected))),
        ("PerceiveResponse", reply(Response::Answer(wire::Answer { question_id: "7".into(), outcome: None }))),
        ("DescribeResponse", told.encode_to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_masks_are_those_of_the_node() {
    let (_node, address) = node_with_page(Sockets::default(), |_| {}).await;
    let Some(mut tab) = Tab::open(&format!("http://{address}/"), &[Scene::new().jpeg()]).await else { return };
    let messages = messages();
    let cases: Vec<Value> = messages.iter().map(|(name, bytes)| json!([name, hex(bytes)])).collect();
    let script = format!(
        "import('/wire.js').then(({{ encode, decode }}) => {}.map(([name, hex]) => {{
           const bytes = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
           return [...encode(name, decode(name, bytes))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
         }}))",
        json!(cases)
    );
    let back = tab.run(&script).await;
    for (i, (name, bytes)) in messages.iter().enumerate() {
        assert_eq!(back[i].as_str(), Some(hex(bytes).as_str()), "{name}, case {i}");
    }
    // What is cut off or is none is an error, never half a message.
    let script = "import('/wire.js').then(({ decode }) => ['0a', '0a05', '08', 'ffffffffffffffffffffff', '0f'].map((hex) => {
        try { decode('PerceiveResponse', Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16))); return 'taken'; }
        catch (error) { return error.name; } }))";
    assert_eq!(tab.run(script).await, json!(vec!["RangeError"; 5]));

    // Masks of many shapes, by their run lengths.
    let shapes: [fn(u32, u32) -> bool; 6] = [
        |_, _| false,
        |_, _| true,
        |x, y| (x + y) % 2 == 0,
        |x, y| (20..50).contains(&x) && (10..40).contains(&y),
        |x, y| (x * 7 + y * 13) % 11 < 4,
        |x, y| x == 0 && y == 0,
    ];
    let size = Size::new(97, 61);
    for shape in shapes {
        let mask = Mask::from_fn(size, shape);
        let text = json!(Rle::encode(&mask).to_coco_string());
        let script = format!("import('/picture.js').then(({{ decodeMask }}) => decodeMask({text}, 97, 61).join(''))");
        let bits: String = mask.bits().iter().map(|bit| char::from(b'0' + bit)).collect();
        assert_eq!(tab.run(&script).await.as_str(), Some(bits.as_str()));
    }
    let script = "import('/picture.js').then(({ decodeMask }) => ['0', 'zzzz', '', 'P', '~'].map((text) => {
        try { decodeMask(text, 5, 5); return 'taken'; } catch (error) { return error.name; } }))";
    assert_eq!(tab.run(script).await, json!(vec!["RangeError"; 5]));
    tab.assert_no_faults();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_is_followed_in_the_camera_s_picture() {
    let scene = Scene::sized(640, 480).with_box(RED, [180, 140, 300, 260]).with_box(BLUE, [400, 300, 500, 400]);
    let (node, address) = node_with_page(Sockets { tokens: Some(tokens()), ..Sockets::default() }, |_| {}).await;
    let Some(mut tab) = Tab::open(&format!("http://{address}/"), &vec![scene.jpeg(); 4]).await else { return };
    // It asks for the token, and goes on asking while it is wrong.
    for token in ["wrong", TOKEN] {
        tab.until("document.getElementById('key').open").await;
        let script = format!(
            "document.getElementById('token').value = '{token}'; document.querySelector('#key button').click()"
        );
        tab.run(&script).await;
    }
    tab.until("document.getElementById('state').textContent === 'live'").await;
    tab.run("document.getElementById('camera').click()").await;
    tab.until("document.getElementById('fps').textContent !== '–'").await;
    tab.type_command("red", "follow").await;
    tab.type_command("the green thing", "follow").await;
    tab.until_verdict("red", "FOUND").await;
    tab.until_verdict("green thing", "ABSENT").await;

    // The mask lies where the box is: its edge is solid in the target's colour, and off the object nothing is.
    tab.run("document.getElementById('boxes').click()").await;
    let near = |x: u32, y: u32| {
        format!(
            "(() => {{ const canvas = document.getElementById('view');
               const [r, g, b] = canvas.getContext('2d').getImageData({x}, {y}, 1, 1).data;
               return canvas.width === 640 && Math.hypot(r - 0x2f, g - 0xd6, b - 0xa5) < 40; }})()"
        )
    };
    tab.until(&near(181, 200)).await;
    assert_eq!(tab.run(&near(170, 200)).await, json!(false));
    assert_eq!(tab.run(&near(450, 350)).await, json!(false));
    tab.run("document.getElementById('masks').click()").await;
    tab.until(&format!("!{}", near(181, 200))).await;

    tab.type_command("blue", "ask").await;
    tab.until("/blue: FOUND, \\d+ % sure/.test(document.getElementById('log').textContent)").await;
    tab.press("red", "Pause").await;
    tab.until_verdict("red", "PAUSED").await;
    tab.press("red", "Resume").await;
    tab.until_verdict("red", "FOUND").await;
    tab.run("window.prompt = () => 'box'").await;
    tab.press("red", "Rename").await;
    tab.until_verdict("box", "FOUND").await;
    tab.press("green thing", "Remove").await;
    tab.until("document.querySelectorAll('.target').length === 1").await;
    tab.run("document.querySelector('.target summary').click()").await;
    tab.until("/p\\(yes\\).*0\\.97/s.test(document.querySelector('.target table')?.textContent ?? '')").await;
    let figures = tab.run("['p50', 'p99', 'node'].map((id) => document.getElementById(id).textContent)").await;
    assert!(
        figures.as_array().expect("a list").iter().all(|f| f.as_str().is_some_and(|f| f.ends_with(" ms"))),
        "{figures}"
    );
    // The wrong token is the one thing that the browser may have complained of.
    tab.faults.retain(|fault| !fault.contains("401"));
    tab.assert_no_faults();
    soon("a node that goes on", async { node.address }).await;
}

/// A node of the shipped bundle; killed with the test.
struct Shipped(Child);

impl Drop for Shipped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tab {
    /// Saves what stands there, on a screen of this size, as a JPEG.
    async fn picture(&mut self, path: &Path, [width, height]: [u32; 2], dark: bool) {
        let mobile = width < 600;
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", screen).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Nothing sticks out sideways.
        let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(self.run(fits).await, json!(true), "at {width} x {height}");
        let taken = self.call("Page.captureScreenshot", json!({ "format": "jpeg", "quality": 85 })).await;
        let code = taken["data"].as_str().expect("is a picture");
        let script = format!(
            "Uint8Array.from(atob('{code}'), (c) => c.charCodeAt(0)).reduce((all, b) => all + b.toString(16).padStart(2, '0'), '')"
        );
        let digits = self.run(&script).await;
        let digits = digits.as_str().expect("is text").as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("is one") as u8;
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        std::fs::create_dir_all(path.parent().expect("has a folder")).expect("makes");
        std::fs::write(path, bytes).expect("writes");
    }
}

/// The shipped bundle on a rendered clip, seen as a visitor sees it; pictures are left in `target/web`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_bundle_answers_a_visitor() {
    if chromium().is_none() {
        return;
    }
    let assets = Assets::load("engines/tabletop").expect("loads");
    let options = ClipOptions { seed: 8, frames: 60, size: (640, 480), split: Split::Val };
    let clip = Clip::new(&assets, options);
    let jpeg = |scene: sam4mllm::dataset::Scene| {
        let mut out = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut out, 90);
        encoder.encode(&scene.rgb, 640, 480, jpeg_encoder::ColorType::Rgb).expect("encodes");
        out
    };
    let there: Vec<Vec<u8>> = (0..30).map(|i| jpeg(clip.frame(i))).collect();
    // Each for six of the camera's: a machine with other work answers few of them.
    let film: Vec<Vec<u8>> = there.iter().chain(there.iter().rev()).flat_map(|f| vec![f.clone(); 6]).collect();
    // Free now, and asked for by nobody else within the moment.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("binds").port();
    let _node = Shipped(
        Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
            .args(["serve", "--listen", "127.0.0.1:0", "--web-listen", &format!("127.0.0.1:{port}")])
            .stderr(Stdio::null())
            .spawn()
            .expect("starts"),
    );
    soon("the page's port", async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let Some(mut tab) = Tab::open(&format!("http://127.0.0.1:{port}/"), &film).await else { return };
    tab.until("document.getElementById('state').textContent === 'live'").await;
    tab.run("document.getElementById('camera').click()").await;
    tab.until("document.getElementById('fps').textContent !== '–'").await;
    let commands = clip.commands();
    for command in commands.iter().take(3) {
        tab.type_command(&command.text, "follow").await;
    }
    // The clip's third command names something that is not there.
    tab.until("document.querySelectorAll('.verdict.FOUND').length >= 1").await;
    tab.until("document.querySelectorAll('.verdict.ABSENT').length >= 1").await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/web");
    tab.picture(&folder.join("desktop.jpg"), [1280, 800], true).await;
    tab.run("document.querySelector('.target summary').click()").await;
    tab.until("document.querySelector('.target table') !== null").await;
    tab.picture(&folder.join("phone.jpg"), [390, 844], true).await;
    tab.picture(&folder.join("light.jpg"), [1280, 800], false).await;
    // While the node starts the page was told to come again, which is no fault of its own.
    tab.faults.retain(|fault| !fault.contains("WebSocket"));
    tab.assert_no_faults();
}
