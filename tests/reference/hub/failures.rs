//! What a hub refuses, and what of a hub is refused: each by its kind, and nothing is left under a final name.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use sam4mllm::hub::{HubErrorKind as Kind, HubOptions, Patience, Token};
use serde_json::json;
use tempfile::TempDir;

use super::server::{Reply, Request, Server, sha256, sibling};
use super::{REPO, hub, nonsense, options, pull, pull_with, tree, usual};

/// A server that lists `siblings` and answers everything else with `bytes`.
fn listing(siblings: serde_json::Value, bytes: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.path.starts_with("/api/") {
        true => Reply::new(200, json!({ "sha": "a".repeat(40), "siblings": siblings }).to_string()),
        false => bytes(request),
    })
}

/// Nothing is in the cache but what is unfinished, locked or said by the hub.
fn nothing_is_left(cache: &TempDir) {
    let left: Vec<_> =
        tree(cache.path()).into_iter().filter(|path| path.extension().is_none_or(|e| e != "lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn bytes_of_another_hash_get_no_name() {
    let weights = nonsense(300_000).remove("model.safetensors").unwrap();
    let mut wrong = weights.clone();
    wrong[299_999] ^= 1;
    for (bytes, status) in [(wrong, 200), (b"<html>sign in</html>".to_vec(), 200)] {
        let expected = if bytes.len() == weights.len() { Kind::Hash } else { Kind::Size };
        let server =
            listing(json!([sibling("model.safetensors", &weights)]), move |_| Reply::new(status, bytes.clone()));
        let (cache, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let error = pull(options(&server, &cache), Some(out.path())).unwrap_err();
        assert_eq!((error.kind(), error.place()), (expected, "model.safetensors"));
        assert_eq!(tree(out.path()), Vec::<std::path::PathBuf>::new());
        let blob = cache.path().join("models--tests--model/blobs").join(sha256(&weights));
        assert!(!blob.exists());
        if expected == Kind::Hash {
            nothing_is_left(&cache);
        }
    }
    // Small files are held against git's own hash.
    let server = listing(json!([sibling("model.safetensors", b"small")]), |_| Reply::new(200, *b"smell"));
    let cache = TempDir::new().unwrap();
    assert_eq!(pull(options(&server, &cache), None).unwrap_err().kind(), Kind::Hash);
    nothing_is_left(&cache);
}

#[test]
fn another_commit_or_hash_in_the_head_is_refused_before_its_bytes() {
    let weights = nonsense(300_000).remove("model.safetensors").unwrap();
    for (name, value, kind) in [
        ("x-repo-commit", "b".repeat(40), Kind::Answer),
        ("x-linked-etag", format!("\"{}\"", "b".repeat(64)), Kind::Hash),
    ] {
        let bytes = weights.clone();
        let server = listing(json!([sibling("model.safetensors", &weights)]), move |_| {
            Reply::new(200, bytes.clone()).with(name, value.clone())
        });
        let cache = TempDir::new().unwrap();
        assert_eq!(pull(options(&server, &cache), None).unwrap_err().kind(), kind);
        nothing_is_left(&cache);
    }
}

#[test]
fn more_than_was_listed_is_cut_off() {
    let weights = nonsense(300_000).remove("model.safetensors").unwrap();
    for chunked in [true, false] {
        let mut long = weights.clone();
        long.extend(vec![0; 30_000_000]);
        let server = listing(json!([sibling("model.safetensors", &weights)]), move |_| Reply {
            chunked,
            ..Reply::new(200, long.clone())
        });
        let (cache, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let error = pull(options(&server, &cache), Some(out.path())).unwrap_err();
        assert_eq!((error.kind(), error.place()), (Kind::Size, "model.safetensors"));
        assert_eq!(tree(out.path()), Vec::<std::path::PathBuf>::new());
        nothing_is_left(&cache);
    }
    // A listing without end is not read to it.
    let server = Server::start(|_| Reply { chunked: true, ..Reply::new(200, vec![b' '; 20 << 20]) });
    let cache = TempDir::new().unwrap();
    assert_eq!(pull(options(&server, &cache), None).unwrap_err().kind(), Kind::Answer);
}

#[test]
fn refusals_say_what_to_do() {
    let (server, _) = hub(5000, usual);
    let cache = TempDir::new().unwrap();
    let kind = |what: &str| pull_with(options(&server, &cache), what, None, &()).unwrap_err().kind();
    assert_eq!(kind("tests/nothing"), Kind::NoRepository);
    assert_eq!(kind(&format!("{REPO}@no-such")), Kind::NoRevision);
    for (status, token, kind, says) in [
        (401, None, Kind::Unauthorized, "HF_TOKEN"),
        (401, Some("hf_x"), Kind::Unauthorized, "does not take this token"),
        (403, Some("hf_x"), Kind::Gated, "accepted on its page"),
        (404, None, Kind::NoFile, "is gone"),
    ] {
        // From the listing, and from a file.
        for part in if status == 404 { &["/resolve/"][..] } else { &["/api/", "/resolve/"] } {
            let (server, _) = hub(5000, move |request, _| {
                let refused = Reply::new(status, "no").with("x-error-code", "EntryNotFound");
                request.path.contains(part).then(|| refused.with("x-error-message", "Please ask"))
            });
            let cache = TempDir::new().unwrap();
            let token = token.map(|token| Token::new(token, "test").unwrap());
            let error = pull(HubOptions { token, ..options(&server, &cache) }, None).unwrap_err();
            assert_eq!(error.kind(), kind, "{status} of {part}");
            let why = error.source().unwrap().to_string();
            assert!(why.contains(says) && why.contains("the hub says: Please"), "{why}");
            assert!(!why.contains("hf_x"), "{why}");
        }
    }
}

#[test]
fn a_busy_hub_is_waited_for_as_long_as_it_asks() {
    let (server, _) = hub(5000, |request, _| {
        let busy = request.path.contains("/storage/") && request.before == 0;
        busy.then(|| Reply::new(429, "").with("retry-after", "1"))
    });
    let (cache, start) = (TempDir::new().unwrap(), Instant::now());
    pull(options(&server, &cache), None).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.seen("/storage/").len(), 2);

    for (status, kind, asks, tries) in [
        (429, Kind::Busy, Some("86400"), 1),
        (429, Kind::Busy, None, 4),
        (503, Kind::Status, Some("0"), 4),
        (500, Kind::Status, None, 4),
        (418, Kind::Status, None, 1),
    ] {
        let (server, _) = hub(5000, move |request, _| {
            let reply = Reply::new(status, "");
            let reply = asks.map_or_else(|| reply.clone(), |seconds| reply.clone().with("retry-after", seconds));
            request.path.contains("/api/").then_some(reply)
        });
        let cache = TempDir::new().unwrap();
        assert_eq!(pull(options(&server, &cache), None).unwrap_err().kind(), kind);
        assert_eq!(server.seen("/api/").len(), tries, "{status} {asks:?}");
    }
}

#[test]
fn connections_that_break_are_given_up_in_the_end() {
    let (server, weights) = hub(300_000, |request, shelf| {
        let mut reply = shelf.answer(request);
        reply.cut = request.path.contains("/storage/").then_some(10);
        Some(reply)
    });
    let cache = TempDir::new().unwrap();
    let error = pull(options(&server, &cache), None).unwrap_err();
    assert!(matches!(error.kind(), Kind::Connection | Kind::Size), "{error:?}");
    assert_eq!(server.seen("/storage/").len(), 4);
    assert!(!weights.blob(&cache).exists());
    assert_eq!(fs::read(weights.incomplete(&cache)).unwrap(), &weights.bytes[..40]);

    let nobody = TempDir::new().unwrap();
    let mut options = options(&server, &nobody);
    options.endpoint = "http://127.0.0.1:1".to_owned();
    options.patience = Patience { tries: 2, ..options.patience };
    assert_eq!(pull(options, None).unwrap_err().kind(), Kind::Connection);
}

#[test]
fn redirects_to_nowhere_are_refused() {
    for to in ["", "nowhere", "ftp://host/x", "http://user@host/x"] {
        let (server, _) = hub(5000, move |request, _| {
            request.path.contains("/api/").then(|| Reply::new(302, "").with("location", to))
        });
        let cache = TempDir::new().unwrap();
        assert_eq!(pull(options(&server, &cache), None).unwrap_err().kind(), Kind::Answer, "{to}");
    }
    let (server, _) = hub(5000, |request, _| Some(Reply::new(302, "").with("location", request.path.clone())));
    let cache = TempDir::new().unwrap();
    assert_eq!(pull(options(&server, &cache), None).unwrap_err().kind(), Kind::Answer);
    assert_eq!(server.seen("").len(), 8);
}

#[test]
fn names_that_climb_are_refused_and_written_nowhere() {
    for name in ["../model.safetensors", "/tmp/model.safetensors", "..\\model.safetensors", "a/../../model.safetensors"]
    {
        let good = sibling("model.safetensors", b"x");
        let server = listing(json!([good, sibling(name, b"x")]), |_| Reply::new(200, *b"x"));
        let (cache, around) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let error = pull(options(&server, &cache), Some(&around.path().join("out"))).unwrap_err();
        assert_eq!(error.kind(), Kind::FileName, "{name}");
        assert_eq!(tree(around.path()), Vec::<std::path::PathBuf>::new());
        nothing_is_left(&cache);
        assert!(server.seen("/resolve/").is_empty());
    }
}

#[test]
fn too_little_room_is_said_before_the_first_byte() {
    let large = 1u64 << 60;
    let lfs = json!({ "sha256": "c".repeat(64), "size": large });
    let siblings = json!([{ "rfilename": "model.safetensors", "size": large, "lfs": lfs }]);
    let server = listing(siblings, |_| Reply::new(200, *b"x"));
    let cache = TempDir::new().unwrap();
    let error = pull(options(&server, &cache), None).unwrap_err();
    assert_eq!(error.kind(), Kind::Disk);
    let why = error.source().unwrap().to_string();
    let numbers: Vec<u64> = why.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] == large && (1..large).contains(&numbers[1]), "{why}");
    assert!(server.seen("/resolve/").is_empty());
    nothing_is_left(&cache);
}
