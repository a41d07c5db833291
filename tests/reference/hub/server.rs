//! A small HTTP server that speaks a hub's endpoints, and can be told to fail in every way that a real one does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;
use sha1::Digest as _;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How many requests for the same path came before.
    pub before: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Only so many bytes of the body are sent.
    pub cut: Option<usize>,
    /// Sent in chunks, without a length.
    pub chunked: bool,
    /// What passes before the connection is closed.
    pub hold: Duration,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, hold) = (Vec::new(), Duration::ZERO);
        Self { status, headers, body: body.into(), cut: None, chunked: false, hold }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn send(&self, stream: &mut impl Write) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let sent = &self.body[..self.cut.unwrap_or(self.body.len()).min(self.body.len())];
        if self.chunked {
            head += "transfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes())?;
            for piece in sent.chunks(50_000) {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")?;
        } else {
            head += &format!("content-length: {}\r\n\r\n", self.body.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(sent)?;
        }
        stream.flush()?;
        thread::sleep(self.hold);
        Ok(())
    }
}

/// A server on a port of its own.
pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    ends: Arc<AtomicBool>,
}

impl Server {
    /// Serves plain HTTP.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(answer, |stream| Some(Box::new(stream)))
    }

    /// Serves over what `wrap` makes of a connection.
    pub fn start_with(
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (log, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let shared = Arc::new((answer, wrap, log.clone()));
        let ended = ends.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = shared.clone();
                thread::spawn(move || {
                    let (answer, wrap, log) = &*shared;
                    let Some(mut stream) = wrap(stream) else { return };
                    let Some(mut request) = read(&mut stream) else { return };
                    {
                        let mut log = log.lock().unwrap();
                        request.before = log.iter().filter(|seen: &&Request| seen.path == request.path).count();
                        log.push(request.clone());
                    }
                    let _ = answer(&request).send(&mut stream);
                });
            }
        });
        Self { address, log, ends }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far whose path holds `part`.
    pub fn seen(&self, part: &str) -> Vec<Request> {
        self.log.lock().unwrap().iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// A connection, encrypted or not.
pub trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

fn read(stream: &mut (impl Read + ?Sized)) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request { path, headers, before: 0 })
}

/// The repositories of a hub.
#[derive(Default, Clone)]
pub struct Shelf {
    /// By name and commit; the last commit of a name is its `main`.
    repos: Vec<(String, String, BTreeMap<String, Vec<u8>>)>,
    /// Where large files are redirected to: the storage's address.
    pub storage: String,
}

/// Files from this length on are in large-file storage.
const LARGE: usize = 2000;

impl Shelf {
    /// Adds a commit of a repository; gives the commit's name.
    pub fn add(&mut self, repo: &str, files: BTreeMap<String, Vec<u8>>) -> String {
        let commit = hex(&sha1::Sha1::digest(format!("{repo} {}", self.repos.len())));
        self.repos.push((repo.to_owned(), commit.clone(), files));
        commit
    }

    /// Adds the files of a directory as a commit of a repository.
    pub fn add_dir(&mut self, repo: &str, dir: &Path) -> String {
        self.add(repo, files_of(dir))
    }

    /// What a hub answers.
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["api", "models", organisation, name, "revision", revision] => {
                self.list(&format!("{organisation}/{name}"), revision)
            }
            [organisation, name, "resolve", commit, ..] => {
                self.resolve(request, &format!("{organisation}/{name}"), commit, &parts[4..].join("/"))
            }
            ["storage", hash] => match self.stored(hash) {
                Some(bytes) => ranged(request, bytes),
                None => Reply::new(403, "signature expired"),
            },
            _ => Reply::new(400, ""),
        }
    }

    fn list(&self, repo: &str, revision: &str) -> Reply {
        let of_repo: Vec<_> = self.repos.iter().filter(|(name, ..)| name == repo).collect();
        if of_repo.is_empty() {
            return Reply::new(404, "").with("x-error-code", "RepoNotFound");
        }
        let found = match revision {
            "main" => of_repo.last(),
            _ => of_repo.iter().find(|(_, commit, _)| commit == revision),
        };
        let Some((_, commit, files)) = found else {
            return Reply::new(404, "").with("x-error-code", "RevisionNotFound");
        };
        let siblings: Vec<_> = files.iter().map(|(name, bytes)| sibling(name, bytes)).collect();
        Reply::new(200, json!({ "id": repo, "sha": commit, "gated": false, "siblings": siblings }).to_string())
    }

    fn resolve(&self, request: &Request, repo: &str, commit: &str, name: &str) -> Reply {
        let found =
            self.repos.iter().find(|(n, c, _)| n == repo && c == commit).and_then(|(.., files)| files.get(name));
        let Some(bytes) = found else { return Reply::new(404, "").with("x-error-code", "EntryNotFound") };
        if bytes.len() < LARGE {
            let reply = ranged(request, bytes).with("x-repo-commit", commit);
            return reply;
        }
        let hash = sha256(bytes);
        Reply::new(302, "moved")
            .with("x-repo-commit", commit)
            .with("x-linked-etag", format!("\"{hash}\""))
            .with("x-linked-size", bytes.len().to_string())
            .with("location", format!("{}/storage/{hash}?signature=s3cr3t", self.storage))
    }

    fn stored(&self, hash: &str) -> Option<&Vec<u8>> {
        self.repos.iter().flat_map(|(.., files)| files.values()).find(|bytes| sha256(bytes) == hash)
    }
}

/// A file as a listing names it.
pub fn sibling(name: &str, bytes: &[u8]) -> serde_json::Value {
    let git = hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize());
    match bytes.len() < LARGE {
        true => json!({ "rfilename": name, "size": bytes.len(), "blobId": git }),
        false => {
            let lfs = json!({ "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
            json!({ "rfilename": name, "size": bytes.len(), "blobId": git, "lfs": lfs })
        }
    }
}

/// The bytes, or those from where they are asked for.
pub fn ranged(request: &Request, bytes: &[u8]) -> Reply {
    let tag = format!("\"{}\"", &sha256(bytes)[..16]);
    let start = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let same = request.header("if-range").is_none_or(|asked| asked == tag);
    match start {
        Some(start) if same && start < bytes.len() => Reply::new(206, &bytes[start..])
            .with("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
            .with("etag", tag),
        _ => Reply::new(200, bytes).with("etag", tag),
    }
}

pub fn files_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
