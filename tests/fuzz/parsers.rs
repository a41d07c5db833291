//! Every parser of bytes that come from outside, each behind one function of bytes, with inputs to begin from.
//!
//! Shared by `main.rs`, which mutates the seeds in the ordinary tests, and by the targets for cargo-fuzz beside it. A
//! parser may refuse anything; it may not panic, hang or take memory out of all proportion.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Component, Path, PathBuf};

use prost::Message;
use sam4mllm::dataset::readers::{Files, Source, read, read_sound};
use sam4mllm::engine::bundle::{DialectName, Manifest};
use sam4mllm::frame::{Depth, DepthEncoding, Encoded, Encoding, FrameLimits, Layout, decode, probe};
use sam4mllm::geometry::Size;
use sam4mllm::hub::read_listing;
use sam4mllm::hub::recipe::Recipe;
use sam4mllm::import::{Adapter, AdapterMode, Level, import, import_adapted};
use sam4mllm::mask::{Mask, Rle};
use sam4mllm::prompt::{Answer, CommandLimits, CountHint, Dialect, Progress, check_command, parse_answer, progress};
use sam4mllm::ros2::convert;
use sam4mllm::server::{Recording, wire};

/// A parser.
pub struct Parser {
    pub name: &'static str,
    /// Inputs that it accepts.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input, and says whether it was accepted.
    pub run: fn(&[u8]) -> bool,
    /// Mutations in the ordinary tests: as many as take about a second at most on one slow core.
    pub rounds: usize,
    /// Most memory that reading one input may take besides what was in use, in MiB.
    pub mib: usize,
}

pub const PARSERS: &[Parser] = &[
    Parser { name: "files", seeds: pictures, run: file, rounds: 20000, mib: 64 },
    Parser { name: "rows", seeds: rows, run: raw, rounds: 100000, mib: 32 },
    Parser { name: "depth", seeds: depths, run: depth, rounds: 100000, mib: 32 },
    Parser { name: "masks", seeds: masks, run: mask, rounds: 100000, mib: 80 },
    Parser { name: "answers", seeds: answers, run: answer, rounds: 100000, mib: 1 },
    Parser { name: "json", seeds: json_answers, run: json_answer, rounds: 100000, mib: 1 },
    Parser { name: "commands", seeds: commands, run: command, rounds: 100000, mib: 4 },
    Parser { name: "manifests", seeds: manifests, run: manifest, rounds: 10000, mib: 8 },
    Parser { name: "recipes", seeds: recipes, run: recipe, rounds: 10000, mib: 8 },
    Parser { name: "listings", seeds: listings, run: listing, rounds: 50000, mib: 4 },
    Parser { name: "checkpoints", seeds: checkpoints, run: checkpoint, rounds: 150, mib: 64 },
    Parser { name: "configs", seeds: configs, run: config, rounds: 150, mib: 64 },
    Parser { name: "adapters", seeds: adapters, run: adapter, rounds: 200, mib: 64 },
    Parser { name: "recordings", seeds: recordings, run: recording, rounds: 10000, mib: 8 },
    Parser { name: "recorded", seeds: recorded, run: recorded_message, rounds: 20000, mib: 8 },
    Parser { name: "refcoco", seeds: refcoco, run: |data| collection(Source::RefCoco, data), rounds: 2000, mib: 16 },
    Parser { name: "coco", seeds: coco, run: instances, rounds: 1500, mib: 16 },
    Parser { name: "grefcoco", seeds: grefcoco, run: |data| collection(Source::GRefCoco, data), rounds: 1500, mib: 16 },
    Parser { name: "llava", seeds: llava, run: |data| collection(Source::Llava, data), rounds: 1500, mib: 16 },
    Parser { name: "reasonseg", seeds: labelme, run: reason_seg, rounds: 1500, mib: 16 },
];

/// Small ones, so that memory beyond them is somebody's claim.
const LIMITS: FrameLimits = FrameLimits { max_pixels: 1 << 20, max_side: 4096 };

fn here(path: &str) -> PathBuf {
    // Of the fuzz package too, which lies within the repository.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if root.join("tests").is_dir() { root } else { root.parent().and_then(Path::parent).expect("the root") };
    root.join(path)
}

fn seed(path: &str) -> Vec<u8> {
    fs::read(here(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

// ---- frames

fn pictures() -> Vec<Vec<u8>> {
    let rgb = |x: u32, y: u32| image::Rgb([(x * 5) as u8, (y * 7) as u8, (x * y) as u8]);
    let picture = image::DynamicImage::from(image::RgbImage::from_fn(40, 24, rgb));
    let mut files: Vec<Vec<u8>> = [image::ImageFormat::Png, image::ImageFormat::WebP, image::ImageFormat::Jpeg]
        .into_iter()
        .map(|format| {
            let mut out = Cursor::new(Vec::new());
            picture.write_to(&mut out, format).expect("encodes");
            out.into_inner()
        })
        .collect();
    let mut deep = Cursor::new(Vec::new());
    image::DynamicImage::from(picture.to_luma16()).write_to(&mut deep, image::ImageFormat::Png).expect("encodes");
    files.push(deep.into_inner());
    files
}

fn file(data: &[u8]) -> bool {
    Encoded::sniffed(data).is_some_and(|frame| decode(&frame, LIMITS).is_ok())
}

/// Encoding, width, height, step, chroma offset and step in two bytes each, then the rows; of every encoding that has rows.
fn rows() -> Vec<Vec<u8>> {
    let head = |e| [e, 0, 16, 0, 8, 0, 128, 0, 0, 0, 0, 0];
    // With a chroma plane and without.
    let rows = |e| [8, 12].map(|rows: usize| [&head(e)[..], &vec![90; 128 * rows]].concat());
    (0..Encoding::ALL.len() as u8).flat_map(rows).filter(|input| raw(input)).collect()
}

/// The numbers in front, and what follows them.
fn numbers<const N: usize>(data: &[u8]) -> Option<([u32; N], &[u8])> {
    let (head, rest) = data.split_at_checked(2 * N)?;
    let number = |i: usize| u32::from(u16::from_le_bytes([head[2 * i], head[2 * i + 1]]));
    // The whole range of a number is reached from its two bytes: beyond 0xff00 it is near 2^32.
    let wide = |n: u32| if n > 0xff00 { n | 0xffff_0000 } else { n };
    Some((std::array::from_fn(|i| wide(number(i))), rest))
}

fn raw(data: &[u8]) -> bool {
    let Some(([encoding, width, height, step, chroma_offset, chroma_step], rows)) = numbers(data) else { return false };
    let layout = Layout { width, height, step, chroma_offset, chroma_step, ..Layout::default() };
    let encoding = Encoding::ALL[encoding as usize % Encoding::ALL.len()];
    // Those of files have a parser of their own.
    if encoding.is_file() {
        return false;
    }
    let frame = Encoded { encoding, layout, data: rows };
    let outcome = decode(&frame, LIMITS);
    // What passes the check can be decoded.
    assert_eq!(probe(&frame, LIMITS).is_ok(), outcome.is_ok());
    outcome.is_ok()
}

/// Encoding and byte order, width, height and step, then the rows.
fn depths() -> Vec<Vec<u8>> {
    (0..4).map(|kind| [&[kind, 0, 16, 0, 8, 0, 80, 0][..], &[60; 80 * 8]].concat()).collect()
}

fn depth(data: &[u8]) -> bool {
    let Some(([kind, width, height, step], rows)) = numbers(data) else { return false };
    let layout = Layout { width, height, step, big_endian: kind & 1 == 1, ..Layout::default() };
    let encoding = DepthEncoding::ALL[kind as usize / 2 % 2];
    let Ok(depth) = Depth::new(encoding, &layout, rows.to_vec()) else { return false };
    let size = depth.size();
    [(0, 0), (size.width - 1, size.height - 1), (size.width, size.height)]
        .iter()
        .all(|&(x, y)| depth.metres(x, y).is_none_or(|metres| metres.is_finite()))
}

// ---- texts

/// Width and height, then COCO's string.
fn masks() -> Vec<Vec<u8>> {
    let inside: [fn(u32, u32) -> bool; 3] = [|x, y| x / 8 == 1 && y > 3, |x, y| (x + y) % 3 == 0, |_, _| true];
    let text = |inside| Rle::encode(&Mask::from_fn(Size::new(40, 24), inside)).to_coco_string();
    inside.map(|inside| [&[40, 0, 24, 0][..], text(inside).as_bytes()].concat()).to_vec()
}

fn mask(data: &[u8]) -> bool {
    let Some(([width, height], text)) = numbers(data) else { return false };
    // Beyond what any frame may have, as a client that knows its own frames would say.
    let size = Size::new(width % 8192, height % 8192);
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Ok(rle) = Rle::from_coco_string(text, size) else { return false };
    rle.decode().is_ok_and(|mask| Rle::encode(&mask).decode().as_ref() == Ok(&mask))
}

/// What the embedded default's dialect says, with other words for PPG.
fn dialect() -> Dialect {
    let ppg = r#"
        [dialect.ppg]
        query = "<user> find points {hint}: {command} <assistant>"
        point = "({x},{y},{label})"
        on = "1"
        off = "0"
    "#;
    let text = String::from_utf8(seed("engines/tabletop/bundle.toml")).expect("UTF-8");
    let (before, rest) = text.split_once("[dialect.ppg]").expect("has PPG");
    let (_, after) = rest.split_once("[dialect.thresholds]").expect("has thresholds");
    let manifest = Manifest::parse(&format!("{before}{ppg}\n[dialect.thresholds]{after}"));
    Dialect::compile(&manifest.expect("is a manifest").dialect).expect("compiles")
}

fn answers() -> Vec<Vec<u8>> {
    let text = ["no such object", "[281,240,863,999]", "[000,001,020,300] [281,240,863,999]"];
    let points = "[281,240,863,999](300,250,1)(863,999,1)(281,240,0)";
    text.iter().chain([&points]).map(|text| text.as_bytes().to_vec()).collect()
}

fn answer(data: &[u8]) -> bool {
    static DIALECT: std::sync::OnceLock<Dialect> = std::sync::OnceLock::new();
    let dialect = DIALECT.get_or_init(dialect);
    let text = String::from_utf8_lossy(data);
    let points = dialect.ppg().is_some_and(|ppg| ppg.parse(&text).is_ok());
    parse_answer(&text, dialect).is_ok() || points
}

fn json_answers() -> Vec<Vec<u8>> {
    let text = [
        "[]",
        "```json\n[\n\t{\"bbox_2d\": [12, 40, 310, 222], \"label\": \"the \\u00e9 mug\"}\n]\n```",
        "[{\"bbox_2d\":[0,0,644,476]},{\"point_2d\":[[3,4],[9,8]],\"bbox_2d\":[1,2,30,40],\"label\":\"\"}]",
    ];
    text.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Both JSON dialects, read, and held to after every prefix: what is whole can be read, what is dead stays so.
fn json_answer(data: &[u8]) -> bool {
    static DIALECTS: std::sync::OnceLock<[Dialect; 2]> = std::sync::OnceLock::new();
    let [pixels, relative] = DIALECTS.get_or_init(|| {
        [DialectName::QwenJson, DialectName::Qwen3Json].map(|name| {
            let mut dialect = Dialect::compile(&name.words()).expect("compiles");
            dialect.fit(Size::new(644, 476)).expect("can be said");
            dialect
        })
    });
    let text = String::from_utf8_lossy(data);
    let answer = parse_answer(&text, pixels);
    if let Ok(Answer::Targets(targets)) = &answer {
        assert!(targets.iter().all(|t| t.bbox.x1 < t.bbox.x2 && t.bbox.x2 <= 644.0 && t.bbox.y2 <= 476.0));
    }
    if progress(&text, pixels) == Progress::Whole {
        assert!(answer.is_ok(), "what a decoder was held to can be read");
    }
    let mut dead = false;
    for (end, _) in text.char_indices().take(64) {
        let now = progress(&text[..end], pixels) == Progress::Dead;
        assert!(now || !dead, "what is dead stays so");
        dead = now;
    }
    answer.is_ok() || parse_answer(&text, relative).is_ok()
}

fn commands() -> Vec<Vec<u8>> {
    let said =
        ["the red mug left of the kettle", "die gr\u{f6}\u{df}te Tasse", r#"{"mug": "the mug", "book": "a book"}"#];
    said.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn command(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let tokens = ["<s>", "</s>", "<image>"].map(String::from);
    let checked = check_command(&text, CommandLimits::default(), &tokens);
    if let Ok(command) = checked {
        static DIALECT: std::sync::OnceLock<Dialect> = std::sync::OnceLock::new();
        let query = DIALECT.get_or_init(dialect).proposal_query(CountHint::One, command);
        assert!(query.contains(command), "asked word for word");
    }
    convert::targets(&text).is_ok() && checked.is_ok()
}

// ---- bundles

fn manifests() -> Vec<Vec<u8>> {
    vec![seed("engines/tabletop/bundle.toml"), seed("src/engine/bundle/testdata/bundle.toml")]
}

fn manifest(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(manifest) = Manifest::parse(text) else { return false };
    Dialect::compile(&manifest.dialect).is_ok()
}

fn recipes() -> Vec<Vec<u8>> {
    ["paper", "small", "training-free"].map(|name| seed(&format!("engines/recipes/{name}.toml"))).into()
}

fn recipe(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| Recipe::parse(text, "fuzzed").is_ok())
}

// ---- hubs

fn listings() -> Vec<Vec<u8>> {
    let (git, sha) = ("0123456789".repeat(4), "01234567".repeat(8));
    let small = format!(r#"{{"rfilename":"config.json","size":3,"blobId":"{git}"}}"#);
    let large = format!(r#"{{"rfilename":"text/model.safetensors","size":9,"lfs":{{"sha256":"{sha}","size":9}}}}"#);
    vec![format!(r#"{{"id":"a/b","sha":"{git}","gated":false,"siblings":[{small},{large}]}}"#).into_bytes()]
}

/// Whatever is believed about names stays below the directory that files are written to.
fn listing(data: &[u8]) -> bool {
    let Ok((commit, names)) = read_listing(data, &"a/b".parse().expect("is a repository")) else { return false };
    let plain = |name: &String| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    assert!(commit.len() == 40 && names.iter().all(plain), "{names:?}");
    true
}

/// A folder of this process and thread, which is what these parsers read from; made anew for each input.
fn folder(files: &[(&str, &[u8])]) -> PathBuf {
    let name = format!("sam4mllm-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
    // In memory where the system has a place there: thousands of folders are made.
    let place = Path::new("/dev/shm");
    let place = if place.is_dir() { place.to_owned() } else { std::env::temp_dir() };
    let folder = place.join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("is made");
    files.iter().for_each(|(name, data)| fs::write(folder.join(name), data).expect("is written"));
    folder
}

/// Does something with a folder, and takes it away.
fn within<T>(files: &[(&str, &[u8])], work: impl FnOnce(&Path) -> T) -> T {
    let folder = folder(files);
    let done = work(&folder);
    let _ = fs::remove_dir_all(&folder);
    done
}

const SAM: &str = "tests/reference/checkpoints/sam";
const SAM_2: &str = "tests/reference/checkpoints/sam2";

/// Headers of weights: their length, and JSON. The weights themselves are no parser's business.
fn checkpoints() -> Vec<Vec<u8>> {
    let whole = seed(&format!("{SAM}/model.safetensors"));
    let length = u64::from_le_bytes(whole[..8].try_into().expect("eight")) as usize;
    vec![whole[..8 + length].to_vec()]
}

fn checkpoint(data: &[u8]) -> bool {
    // As many bytes behind the header as the real one has.
    let whole = seed(&format!("{SAM}/model.safetensors"));
    let behind = whole.len().saturating_sub(checkpoints()[0].len());
    let weights = [data, &whole[whole.len() - behind..]].concat();
    let config = seed(&format!("{SAM}/config.json"));
    within(&[("model.safetensors", &weights), ("config.json", &config)], |folder| {
        import(folder, folder.join("out"), Level::Portable).is_ok()
    })
}

fn configs() -> Vec<Vec<u8>> {
    [SAM, SAM_2].map(|dir| seed(&format!("{dir}/config.json"))).to_vec()
}

fn config(data: &[u8]) -> bool {
    let second = data.windows(4).any(|bytes| bytes == b"Sam2");
    let weights = seed(&format!("{}/model.safetensors", if second { SAM_2 } else { SAM }));
    within(&[("model.safetensors", &weights), ("config.json", data)], |folder| {
        import(folder, folder.join("out"), Level::Portable).is_ok()
    })
}

const ADAPTER: &str = "tests/reference/adapters/plain";

fn adapters() -> Vec<Vec<u8>> {
    vec![seed(&format!("{ADAPTER}/adapter_config.json"))]
}

fn adapter(data: &[u8]) -> bool {
    let weights = seed(&format!("{ADAPTER}/adapter_model.safetensors"));
    within(&[("adapter_model.safetensors", &weights), ("adapter_config.json", data)], |dir| {
        let adapter = Some(Adapter { dir, mode: AdapterMode::Keep });
        import_adapted(here("tests/reference/checkpoints/llava-siglip"), adapter, dir.join("out"), Level::Portable)
            .is_ok()
    })
}

// ---- recordings

fn request(request: wire::perceive_request::Request) -> Vec<u8> {
    wire::PerceiveRequest { request: Some(request), options: None }.encode_to_vec()
}

/// Messages of every kind that a recording has, by topic.
fn said() -> Vec<(&'static str, Vec<u8>)> {
    use wire::perceive_request::Request;
    let target = wire::Target { target_id: "r".into(), command: "the red box".into(), ..Default::default() };
    let frame = wire::Frame { seq: 1, stamp_ns: 7, encoding: "jpeg".into(), ..Default::default() };
    let mut answer = wire::FrameResult { seq: 1, width: 40, height: 24, ..Default::default() };
    answer.targets.push(wire::TargetResult { target_id: "r".into(), ..Default::default() });
    let reply = wire::perceive_response::Response::Frame(answer);
    vec![
        ("/requests", request(Request::SetTargets(wire::SetTargets { targets: vec![target] }))),
        ("/camera", [&[0x12, 4][..], b"\xff\xd8\xff\xd9"].concat()),
        ("/requests", request(Request::Frame(frame))),
        ("/schedule", vec![0x12, 4, 0x08, 1, 0x18, 1]),
        ("/replies", wire::PerceiveResponse { response: Some(reply) }.encode_to_vec()),
    ]
}

/// A recording with these messages.
fn written(messages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let options = mcap::WriteOptions::new().compression(None).chunk_size(Some(256));
    let mut writer = options.create(&mut out).expect("begins");
    let metadata = BTreeMap::from([("engine".to_owned(), "fake".to_owned())]);
    writer
        .write_metadata(&mcap::records::Metadata { name: "sam4mllm.recording".into(), metadata })
        .expect("is written");
    let mut channels = BTreeMap::new();
    for (sequence, (topic, data)) in messages.iter().enumerate() {
        let channel = *channels
            .entry(*topic)
            .or_insert_with(|| writer.add_channel(0, topic, "protobuf", &BTreeMap::new()).expect("is added"));
        let header = mcap::records::MessageHeader {
            channel_id: channel,
            sequence: sequence as u32,
            log_time: 1,
            publish_time: 1,
        };
        writer.write_to_known_channel(&header, data).expect("is written");
    }
    writer.finish().expect("ends");
    drop(writer);
    out.into_inner()
}

fn recordings() -> Vec<Vec<u8>> {
    vec![written(&said())]
}

fn recording(data: &[u8]) -> bool {
    let Ok(mut recording) = Recording::new(Box::new(Cursor::new(data.to_vec())), data.len() as u64) else {
        return false;
    };
    loop {
        match recording.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// A topic's number, and a message: checksums guard the file, so what it holds is changed before it is written.
fn recorded() -> Vec<Vec<u8>> {
    let said = said();
    (0..said.len()).map(|i| [&[i as u8][..], &said[i].1].concat()).collect()
}

fn recorded_message(data: &[u8]) -> bool {
    let Some((&topic, message)) = data.split_first() else { return false };
    let mut said = said();
    let place = topic as usize % said.len();
    said[place].1 = message.to_vec();
    recording(&written(&said))
}

// ---- data sets

const INSTANCES: &str = "tests/dataset/refcoco/instances.json";

fn refcoco() -> Vec<Vec<u8>> {
    ["unc", "google", "umd"].map(|by| seed(&format!("tests/dataset/refcoco/refs({by}).p"))).to_vec()
}

fn grefcoco() -> Vec<Vec<u8>> {
    vec![seed("tests/dataset/grefcoco/grefs(unc).json")]
}

fn llava() -> Vec<Vec<u8>> {
    vec![seed("tests/dataset/llava/llava_instruct.json")]
}

/// Reads records strictly and tolerantly; what is read can be drawn.
fn collection(source: Source, data: &[u8]) -> bool {
    let instances = match source {
        Source::GRefCoco => seed("tests/dataset/grefcoco/instances.json"),
        _ => seed(INSTANCES),
    };
    within(&[("records", data), ("instances.json", &instances)], |folder| sound(source, folder.join("records")))
}

fn sound(source: Source, records: PathBuf) -> bool {
    let files = Files { records, instances: None, images: None, split: None };
    let draw = |collection: sam4mllm::dataset::readers::Collection| {
        for record in collection.records.iter().filter(|r| r.image.size.is_none_or(|s| s.pixels() <= 1 << 22)) {
            record.referring().map(|referring| referring.mask());
        }
    };
    let _ = read_sound(source, &files).map(|(collection, _)| draw(collection));
    read(source, &files).map(draw).is_ok()
}

fn coco() -> Vec<Vec<u8>> {
    vec![seed(INSTANCES)]
}

fn instances(data: &[u8]) -> bool {
    let refs = &refcoco()[0];
    within(&[("records", refs), ("instances.json", data)], |folder| sound(Source::RefCoco, folder.join("records")))
}

fn labelme() -> Vec<Vec<u8>> {
    vec![seed("tests/dataset/reasonseg/train/1234_0a1b2c3d.json"), seed("tests/dataset/reasonseg/val/5678.json")]
}

fn reason_seg(data: &[u8]) -> bool {
    let picture = seed("tests/dataset/reasonseg/val/5678.jpg");
    within(&[("5678.jpg", &picture), ("5678.json", data)], |folder| {
        let train = folder.join("train");
        let _ = fs::create_dir(&train);
        for name in ["5678.jpg", "5678.json"] {
            let _ = fs::rename(folder.join(name), train.join(name));
        }
        sound(Source::ReasonSeg, train)
    })
}
