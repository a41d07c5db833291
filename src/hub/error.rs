//! What can go wrong between a hub and a directory.

use std::error::Error;

/// Kinds of [`HubError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubErrorKind {
    /// A repository or revision is not spelled as one, or a pattern not as one.
    Name,
    /// The endpoint is no address of a hub.
    Endpoint,
    /// The token cannot be read, or would travel in plain text.
    Token,
    /// TLS cannot be set up on this machine.
    Tls,
    /// 401: the hub wants a token, or another one. It also says so about repositories that do not exist.
    Unauthorized,
    /// 403: the repository's conditions have not been accepted by the token's owner.
    Gated,
    /// 404: there is no such repository.
    NoRepository,
    /// 404: the repository has no such revision.
    NoRevision,
    /// 404: the revision has no such file.
    NoFile,
    /// The hub kept refusing: 429.
    Busy,
    /// The hub cannot be reached, or the connection broke time and again.
    Connection,
    /// The hub kept failing (5xx), or answered with a status that means nothing here.
    Status,
    /// An answer is not what the protocol demands: not JSON, too long, another commit, a redirect to nowhere.
    Answer,
    /// The hub lists a file under a name that is no plain relative path.
    FileName,
    /// A file's bytes are not those of the hash that the hub lists.
    Hash,
    /// A file is longer or shorter than the hub lists.
    Size,
    /// Nothing that an import needs is there, or it is not clear which of several.
    Selection,
    /// The file system has too little room.
    Disk,
    /// What is wanted is not in the cache, and the hub may not be asked.
    Offline,
    /// A file or directory cannot be read or written.
    Io,
    /// Another part of the same pull failed first.
    Stopped,
}

/// A pull failed; says at which repository, file or setting, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{} `{place}`", match .kind {
    HubErrorKind::Name => "read name",
    HubErrorKind::Endpoint => "use endpoint",
    HubErrorKind::Token => "use token for",
    HubErrorKind::Tls => "set up TLS for",
    HubErrorKind::Unauthorized => "open repository",
    HubErrorKind::Gated => "open gated repository",
    HubErrorKind::NoRepository => "find repository",
    HubErrorKind::NoRevision => "find revision",
    HubErrorKind::NoFile => "find file",
    HubErrorKind::Busy => "get a turn at",
    HubErrorKind::Connection => "reach",
    HubErrorKind::Status => "get an answer from",
    HubErrorKind::Answer => "understand answer of",
    HubErrorKind::FileName => "take file name",
    HubErrorKind::Hash => "check hash of",
    HubErrorKind::Size => "check size of",
    HubErrorKind::Selection => "choose files of",
    HubErrorKind::Disk => "find room in",
    HubErrorKind::Offline => "find in cache",
    HubErrorKind::Io => "access",
    HubErrorKind::Stopped => "finish",
})]
pub struct HubError {
    kind: HubErrorKind,
    place: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl HubError {
    /// An error of `kind` at `place`.
    pub(super) fn new(kind: HubErrorKind, place: impl Into<String>) -> Self {
        Self { kind, place: place.into(), source: None }
    }

    /// A file or directory that cannot be read or written.
    pub(super) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::new(HubErrorKind::Io, path.display().to_string()).because(source)
    }

    /// Adds the reason.
    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What and why in one line.
    pub(super) fn told(&self) -> String {
        self.source.as_ref().map_or_else(|| self.to_string(), |why| format!("{self}: {why}"))
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> HubErrorKind {
        self.kind
    }

    /// The repository, file, setting or host at fault.
    pub fn place(&self) -> &str {
        &self.place
    }
}
