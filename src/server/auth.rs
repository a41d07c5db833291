//! Who a client is: the holder of a token, else of a certificate, else whoever is at that address.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::admission::{Admission, Refusal};

/// The header that carries a token.
const HEADER: &str = "authorization";
/// The fewest bytes of a token: 128 bits in hex digits have 32.
const MIN_TOKEN_BYTES: usize = 16;
/// The most bytes of a token.
const MAX_TOKEN_BYTES: usize = 1024;
/// The most bytes of a holder's name.
const MAX_NAME_BYTES: usize = 64;

/// What the connection says of the client.
#[derive(Debug, Clone)]
pub(super) struct Peer(Arc<str>);

impl Peer {
    pub(super) fn of_tcp(stream: &TcpStream) -> Self {
        // A connection from IPv4 on a socket for both is that client all the same.
        let ip = stream.peer_addr().ok().map(|a| a.ip().to_canonical());
        Self(ip.map_or_else(|| "ip:unknown".into(), |ip: IpAddr| format!("ip:{ip}").into()))
    }

    /// A client's certificate was checked before.
    pub(super) fn of_certificate(der: &[u8]) -> Self {
        let digest = Sha256::digest(der);
        let hex: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("certificate:{hex}").into())
    }

    pub(super) fn of_user(uid: Option<u32>) -> Self {
        Self(uid.map_or_else(|| "user:unknown".into(), |uid| format!("user:{uid}").into()))
    }
}

/// The client of a call, as quotas and logs know it.
#[derive(Debug, Clone)]
pub(super) struct Client(pub Arc<str>);

/// A list of tokens cannot be read; says where, never what stands there.
#[derive(Debug, thiserror::Error)]
#[error("read tokens `{path}`{}", .line.map(|n| format!(", line {n}")).unwrap_or_default())]
pub struct TokensError {
    path: PathBuf,
    line: Option<usize>,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Tokens and their holders' names. Only hashes are kept.
#[derive(Clone)]
pub struct Tokens(Arc<[(Arc<str>, [u8; 32])]>);

impl Tokens {
    /// Reads a file of lines `name token`; empty lines and those that begin with `#` count for nothing. One name may have
    /// several tokens, so that they can be changed one after the other.
    ///
    /// # Errors
    /// A file that cannot be read or holds no token, and the first line that is something else.
    pub fn load(path: &Path) -> Result<Self, TokensError> {
        let bad = |line, source| TokensError { path: path.to_owned(), line, source };
        let text = std::fs::read_to_string(path).map_err(|e| bad(None, Box::new(e)))?;
        let mut found = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            found.push(holder(line).map_err(|what| bad(Some(i + 1), what.into()))?);
        }
        if found.is_empty() {
            return Err(bad(None, "it holds no token; write lines of `name token`".into()));
        }
        Ok(Self(found.into()))
    }

    /// How many tokens there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whose `token` it is. Every token is compared, each in the same time whatever it is.
    fn holder(&self, token: &[u8]) -> Option<Arc<str>> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut holder = None;
        for (name, known) in self.0.iter() {
            if bool::from(known.ct_eq(&hash)) {
                holder = Some(name.clone());
            }
        }
        holder
    }
}

fn holder(line: &str) -> Result<(Arc<str>, [u8; 32]), &'static str> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
        return Err("expected a name and a token");
    };
    if name.len() > MAX_NAME_BYTES || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a name has at most 64 visible ASCII characters");
    }
    if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a token has 16 to 1024 visible ASCII characters; `openssl rand -hex 32` makes one");
    }
    Ok((format!("token:{name}").into(), Sha256::digest(token).into()))
}

/// Stands before every service but health, which supervisors ask without a token.
#[derive(Clone)]
pub(super) struct Guard {
    pub tokens: Option<Tokens>,
    pub admission: Arc<Admission>,
}

impl Guard {
    /// Who comes from `peer` with `token`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where a token is asked for, and this is none.
    pub(super) fn client(&self, peer: Option<&Peer>, token: Option<&[u8]>) -> Result<Arc<str>, Status> {
        let Some(tokens) = &self.tokens else {
            return Ok(peer.map_or_else(|| "unknown".into(), |peer| peer.0.clone()));
        };
        token.and_then(|token| tokens.holder(token)).ok_or_else(|| {
            self.admission.count_refused(Refusal::Token);
            // The same for none, a wrong one and a malformed one: whoever guesses learns nothing.
            Status::unauthenticated("authenticate: send `authorization: Bearer TOKEN` with a token of this node")
        })
    }
}

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get(HEADER);
        let token = header.and_then(|value| bearer(value.as_bytes()));
        let client = self.client(request.extensions().get::<Peer>(), token)?;
        // What follows has no need of the token, so no log can show it.
        request.metadata_mut().remove(HEADER);
        request.extensions_mut().insert(Client(client));
        Ok(request)
    }
}

/// The token of `authorization: Bearer TOKEN`. Source: RFC 6750, section 2.1; the scheme's case does not count.
pub(super) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Tokens, TokensError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        std::fs::write(&path, text).expect("writes");
        Tokens::load(&path)
    }

    #[test]
    fn tokens_have_holders() {
        let tokens = load("# robots\n\nplanner  0123456789abcdef\narm fedcba9876543210\narm 00112233445566778899\n");
        let tokens = tokens.expect("is a list");
        assert_eq!(tokens.count(), 3);
        assert_eq!(tokens.holder(b"0123456789abcdef").as_deref(), Some("token:planner"));
        assert_eq!(tokens.holder(b"00112233445566778899").as_deref(), Some("token:arm"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"planner"] {
            assert_eq!(tokens.holder(wrong), None);
        }
    }

    #[test]
    fn bad_lists_say_where_and_never_what() {
        let cases = [
            ("", None),
            ("# nothing\n", None),
            ("planner secret-but-short\nx tooshort\n", Some(2)),
            ("0123456789abcdef\n", Some(1)),
            ("planner 0123456789abcdef more\n", Some(1)),
            ("pl\u{e4}nner 0123456789abcdef\n", Some(1)),
        ];
        for (text, line) in cases {
            let error = load(text).err().unwrap_or_else(|| panic!("{text:?} is taken"));
            assert_eq!(error.line, line, "{text:?}");
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            for word in ["0123456789abcdef", "tooshort"] {
                assert!(!format!("{error}{source}{error:?}").contains(word), "{error:?}");
            }
        }
    }

    #[test]
    fn bearer_tokens_are_read() {
        let read = |value: &str| bearer(value.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(read("Bearer abc"), Some(b"abc".to_vec()));
        assert_eq!(read("bEARER  abc "), Some(b"abc".to_vec()));
        for other in ["Basic abc", "Bearer", "abc", ""] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
