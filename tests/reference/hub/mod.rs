//! Pulling from a hub over real sockets: what arrives, what is asked for again, and what is refused.

mod command;
mod failures;
mod recipes;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sam4mllm::hub::{
    Asked, Hub, HubError, HubErrorKind as Kind, HubOptions, Patience, Progress, Pulled, Selection, Token,
};
use server::{Reply, Request, Server, Shelf, files_of, ranged};
use tempfile::TempDir;

use super::reference;

/// The repository of most tests.
const REPO: &str = "tests/model";

/// Options that look at `server` and keep what comes in `cache`, and do not wait long.
fn options(server: &Server, cache: &TempDir) -> HubOptions {
    let mut options =
        HubOptions::from_variables(Asked::default(), |name| (name == "HF_HUB_CACHE").then(|| cache.path().into()))
            .unwrap();
    options.endpoint = server.url();
    options.silence = Duration::from_secs(10);
    options.patience = Patience { tries: 4, first: Duration::from_millis(2), longest: Duration::from_secs(20) };
    options
}

fn pull_with(options: HubOptions, what: &str, out: Option<&Path>, told: &dyn Progress) -> Result<Pulled, HubError> {
    let hub = Hub::new(options)?;
    let plan = hub.plan(&what.parse()?, &Selection::for_import(), out, told)?;
    hub.check_room(&[&plan])?;
    hub.carry_out(&plan, told)
}

fn pull(options: HubOptions, out: Option<&Path>) -> Result<Pulled, HubError> {
    pull_with(options, REPO, out, &())
}

/// A model without sense: settings, and weights that do not compress and are a large file.
fn nonsense(bytes: usize) -> BTreeMap<String, Vec<u8>> {
    let noise = (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    [("config.json".to_owned(), b"{}\n".to_vec()), ("model.safetensors".to_owned(), noise)].into()
}

/// A hub of one such repository, itself the storage; `change` may answer in its place.
fn hub(bytes: usize, change: impl Fn(&Request, &Shelf) -> Option<Reply> + Send + Sync + 'static) -> (Server, Weights) {
    let files = nonsense(bytes);
    let weights = Weights { bytes: files["model.safetensors"].clone() };
    let mut shelf = Shelf::default();
    shelf.add(REPO, files);
    (serve(shelf, change), weights)
}

/// The weights of such a repository.
struct Weights {
    bytes: Vec<u8>,
}

impl Weights {
    /// Its blob in a cache.
    fn blob(&self, cache: &TempDir) -> PathBuf {
        cache.path().join("models--tests--model/blobs").join(server::sha256(&self.bytes))
    }

    fn incomplete(&self, cache: &TempDir) -> PathBuf {
        self.blob(cache).with_extension("incomplete")
    }
}

/// A hub that is its own storage.
fn serve(shelf: Shelf, change: impl Fn(&Request, &Shelf) -> Option<Reply> + Send + Sync + 'static) -> Server {
    Server::start(move |request| change(request, &shelf).unwrap_or_else(|| shelf.answer(request)))
}

fn usual(_: &Request, _: &Shelf) -> Option<Reply> {
    None
}

/// Every file below `dir`, by its path.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(tree(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_checkpoint_arrives_whole_and_is_not_fetched_twice() {
    let mut shelf = Shelf::default();
    let mut files = files_of(&reference("mllms/llava-qwen2"));
    let wanted = files.clone();
    files.extend([("README.md".to_owned(), b"# read".to_vec()), ("pytorch_model.bin".to_owned(), vec![7; 9000])]);
    let commit = shelf.add(REPO, files);
    let server = serve(shelf, usual);
    let (cache, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());

    let pulled = pull(options(&server, &cache), Some(out.path())).unwrap();
    assert_eq!((pulled.commit.as_str(), pulled.dir.as_path()), (commit.as_str(), out.path()));
    assert!(pulled.files.iter().all(|file| file.fetched));
    assert_eq!(files_of(out.path()), wanted);
    assert_eq!(server.seen("/resolve/").len(), wanted.len());
    assert!(server.seen("README").is_empty() && server.seen("pytorch").is_empty());

    // The layout that the hub's own clients read.
    let dir = cache.path().join("models--tests--model");
    assert_eq!(fs::read_to_string(dir.join("refs/main")).unwrap(), commit);
    let weights = dir.join("snapshots").join(&commit).join("model-00001-of-00003.safetensors");
    let link = fs::read_link(&weights).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(server::sha256(&wanted["model-00001-of-00003.safetensors"])));
    assert_eq!(fs::read(weights).unwrap(), wanted["model-00001-of-00003.safetensors"]);

    let again = pull(options(&server, &cache), None).unwrap();
    assert_eq!((again.dir, again.commit), (dir.join("snapshots").join(&commit), commit));
    assert!(again.files.iter().all(|file| !file.fetched));
    assert_eq!(server.seen("/resolve/").len(), wanted.len());
}

#[test]
fn a_pinned_commit_stays_what_it_was() {
    let mut shelf = Shelf::default();
    let old = shelf.add(REPO, nonsense(5000));
    let mut files = nonsense(5000);
    files.insert("config.json".into(), b"{\"new\": true}\n".to_vec());
    let new = shelf.add(REPO, files);
    let server = serve(shelf, usual);
    let (cache, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = |what: &str| {
        let pulled = pull_with(options(&server, &cache), what, Some(out.path()), &()).unwrap();
        (pulled.commit, fs::read_to_string(out.path().join("config.json")).unwrap())
    };
    assert_eq!(config(REPO), (new.clone(), "{\"new\": true}\n".to_owned()));
    assert_eq!(config(&format!("{REPO}@{old}")), (old, "{}\n".to_owned()));
    // The weights are those of both.
    assert_eq!(server.seen("/storage/").len(), 1);
    assert_eq!(config(&format!("{REPO}@{new}")).0, new);
}

#[test]
fn after_a_cut_only_the_rest_is_asked_for() {
    const CUT: usize = 700_001;
    let (server, weights) = hub(2_000_000, |request, shelf| {
        let mut reply = shelf.answer(request);
        reply.cut = (request.path.contains("/storage/") && request.before == 0).then_some(CUT);
        Some(reply)
    });
    let cache = TempDir::new().unwrap();
    let pulled = pull(options(&server, &cache), None).unwrap();
    assert_eq!(fs::read(pulled.dir.join("model.safetensors")).unwrap(), weights.bytes);
    let [first, second] = &server.seen("/storage/")[..] else { panic!("not two requests") };
    assert_eq!(first.header("range"), None);
    let from = second.header("range").unwrap().strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
    assert_eq!(from.parse::<usize>().unwrap(), CUT);
    assert!(second.header("if-range").is_some());
}

#[test]
fn another_process_goes_on_where_one_ended() {
    let (server, weights) = hub(500_000, usual);
    let cache = TempDir::new().unwrap();
    fs::create_dir_all(weights.blob(&cache).parent().unwrap()).unwrap();
    fs::write(weights.incomplete(&cache), &weights.bytes[..123_456]).unwrap();
    let pulled = pull(options(&server, &cache), None).unwrap();
    assert_eq!(fs::read(pulled.dir.join("model.safetensors")).unwrap(), weights.bytes);
    let asked: Vec<_> = server.seen("/storage/").iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(asked, [Some("bytes=123456-".to_owned())]);
    assert!(!weights.incomplete(&cache).exists());
}

#[test]
fn a_beginning_of_something_else_is_thrown_away() {
    let (server, weights) = hub(500_000, usual);
    let cache = TempDir::new().unwrap();
    fs::create_dir_all(weights.blob(&cache).parent().unwrap()).unwrap();
    for (left, asked) in [(vec![1; 1000], vec![Some("bytes=1000-"), None]), (vec![1; 500_001], vec![None])] {
        let before = server.seen("/storage/").len();
        let _ = fs::remove_file(weights.blob(&cache));
        fs::write(weights.incomplete(&cache), left).unwrap();
        let pulled = pull(options(&server, &cache), None).unwrap();
        assert_eq!(fs::read(pulled.dir.join("model.safetensors")).unwrap(), weights.bytes);
        let seen = server.seen("/storage/");
        assert_eq!(seen[before..].iter().map(|r| r.header("range")).collect::<Vec<_>>(), asked);
    }
}

#[test]
fn a_storage_that_knows_no_ranges_begins_again() {
    let (server, weights) = hub(500_000, |request, shelf| {
        let whole = Request { headers: BTreeMap::new(), ..request.clone() };
        let mut reply = shelf.answer(&whole);
        reply.cut = (request.path.contains("/storage/") && request.before == 0).then_some(123_456);
        Some(reply)
    });
    let cache = TempDir::new().unwrap();
    let pulled = pull(options(&server, &cache), None).unwrap();
    assert_eq!(fs::read(pulled.dir.join("model.safetensors")).unwrap(), weights.bytes);
    assert_eq!(server.seen("/storage/").len(), 2);
}

#[test]
fn a_silent_storage_is_left_and_asked_for_the_rest() {
    let (server, weights) = hub(500_000, |request, shelf| {
        let mut reply = shelf.answer(request);
        if request.path.contains("/storage/") && request.before == 0 {
            (reply.cut, reply.hold) = (Some(100_000), Duration::from_secs(60));
        }
        Some(reply)
    });
    let cache = TempDir::new().unwrap();
    let options = HubOptions { silence: Duration::from_millis(700), ..options(&server, &cache) };
    let pulled = pull(options, None).unwrap();
    assert_eq!(fs::read(pulled.dir.join("model.safetensors")).unwrap(), weights.bytes);
    assert_eq!(server.seen("/storage/")[1].header("range"), Some("bytes=100000-"));
}

#[test]
fn a_token_reaches_the_hub_and_no_other_host() {
    let mut shelf = Shelf::default();
    shelf.add(REPO, nonsense(400_000));
    let stored = shelf.clone();
    let storage = Server::start(move |request| stored.answer(request));
    shelf.storage = storage.url();
    let server = serve(shelf, usual);
    let (cache, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let token = Some(Token::new("hf_of_a_test", "test").unwrap());
    pull(HubOptions { token, ..options(&server, &cache) }, Some(out.path())).unwrap();
    assert_eq!(files_of(out.path()), nonsense(400_000));

    let of_storage = storage.seen("");
    assert_eq!(of_storage.len(), 1);
    assert!(of_storage[0].path.contains("signature=s3cr3t"));
    assert_eq!(of_storage[0].header("authorization"), None);
    assert!(!format!("{of_storage:?}").contains("hf_of_a_test"));
    let of_hub = server.seen("");
    assert_eq!(of_hub.len(), 3);
    assert!(of_hub.iter().all(|r| r.header("authorization") == Some("Bearer hf_of_a_test")), "{of_hub:?}");
}

#[test]
fn offline_the_cache_is_all_there_is() {
    let (server, weights) = hub(300_000, usual);
    let cache = TempDir::new().unwrap();
    let offline = || HubOptions { offline: true, ..options(&server, &cache) };
    assert_eq!(pull(offline(), None).unwrap_err().kind(), Kind::Offline);
    let pulled = pull(options(&server, &cache), None).unwrap();
    let asked = server.seen("").len();
    let out = TempDir::new().unwrap();
    let found = pull(offline(), Some(out.path())).unwrap();
    assert_eq!(found.commit, pulled.commit);
    assert_eq!(files_of(out.path()), nonsense(300_000));
    let by_commit = pull_with(offline(), &format!("{REPO}@{}", pulled.commit), None, &()).unwrap();
    assert_eq!(by_commit.dir, pulled.dir);
    assert_eq!(server.seen("").len(), asked);
    // What is not there cannot be chosen.
    let hub = Hub::new(offline()).unwrap();
    let torch = Selection::matching(&["*.pt".to_owned()]).unwrap();
    assert_eq!(hub.plan(&REPO.parse().unwrap(), &torch, None, &()).unwrap_err().kind(), Kind::Offline);
    // A flipped bit is found, offline and not.
    let mut bytes = weights.bytes.clone();
    bytes[1234] ^= 1;
    fs::write(weights.blob(&cache), bytes).unwrap();
    assert_eq!(pull(offline(), None).unwrap_err().kind(), Kind::Offline);
    pull(options(&server, &cache), None).unwrap();
    assert_eq!(fs::read(weights.blob(&cache)).unwrap(), weights.bytes);
}

/// Notes who waits for what.
#[derive(Default)]
struct Waits(Mutex<Vec<String>>);

impl Progress for Waits {
    fn wait(&self, file: &str, why: &str) {
        self.0.lock().unwrap().push(format!("{file}: {why}"));
    }
}

#[test]
fn two_pulls_at_once_fetch_each_file_once() {
    let (server, _) = hub(300_000, |request, shelf| {
        if request.path.contains("/storage/") {
            std::thread::sleep(Duration::from_millis(400));
        }
        Some(shelf.answer(request))
    });
    let (cache, waits) = (Arc::new(TempDir::new().unwrap()), Waits::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let out = TempDir::new().unwrap();
                pull_with(options(&server, &cache), REPO, Some(out.path()), &waits).unwrap();
                assert_eq!(files_of(out.path()), nonsense(300_000));
            });
        }
    });
    assert_eq!(server.seen("/storage/").len(), 1);
    let waits = waits.0.into_inner().unwrap();
    assert!(waits.iter().any(|wait| wait.contains("another pull")), "{waits:?}");
    assert!(tree(cache.path()).iter().all(|path| path.extension().is_none_or(|e| e != "incomplete")));
}

#[test]
fn a_mirror_may_lie_below_a_path_and_move_a_repository() {
    let mut shelf = Shelf::default();
    shelf.add("tests/renamed", nonsense(5000));
    let server = serve(shelf, |request, shelf| {
        let inner = request.path.strip_prefix("/mirror")?;
        if inner.starts_with("/api/models/tests/model/") {
            let to = request.path.replace("tests/model", "tests/renamed");
            return Some(Reply::new(307, "").with("location", to));
        }
        let path = inner.replace("tests/model", "tests/renamed");
        Some(shelf.answer(&Request { path, ..request.clone() }))
    });
    let cache = TempDir::new().unwrap();
    let options = HubOptions { endpoint: format!("{}/mirror/", server.url()), ..options(&server, &cache) };
    let pulled = pull(options, None).unwrap();
    assert_eq!(fs::read(pulled.dir.join("config.json")).unwrap(), b"{}\n");
}

#[test]
fn what_a_range_is_not_is_refused() {
    let (server, weights) = hub(300_000, |request, _| {
        let bytes = nonsense(300_000).remove("model.safetensors").unwrap();
        request.path.contains("/storage/").then(|| {
            let mut reply = ranged(request, &bytes);
            reply.headers.retain(|(name, _)| *name != "content-range");
            reply.with("content-range", "bytes 7-299999/300000")
        })
    });
    let cache = TempDir::new().unwrap();
    fs::create_dir_all(weights.blob(&cache).parent().unwrap()).unwrap();
    fs::write(weights.incomplete(&cache), &weights.bytes[..1000]).unwrap();
    assert_eq!(pull(options(&server, &cache), None).unwrap_err().kind(), Kind::Answer);
}
