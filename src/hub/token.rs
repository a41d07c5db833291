//! The token that opens private and gated repositories. It is never printed and never leaves for another host.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ureq::http::HeaderValue;

use super::error::{HubError, HubErrorKind as Kind};

/// Longest token that is read, in bytes; real ones have some 40.
const MAX_BYTES: u64 = 4096;

/// A user's access token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token; white space around it is not part of it.
    ///
    /// # Errors
    /// [`HubErrorKind::Token`](Kind::Token) where it is empty or holds what no header can; `from` is the variable or file
    /// it came from, and all that the error names.
    pub fn new(text: &str, from: &str) -> Result<Self, HubError> {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if plain { Ok(Self(text.to_owned())) } else { Err(HubError::new(Kind::Token, from).because("is not a token")) }
    }

    /// Reads a token from a file.
    ///
    /// # Errors
    /// [`HubErrorKind::Token`](Kind::Token), also where the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, HubError> {
        let place = path.display().to_string();
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        read.map_err(|e| HubError::new(Kind::Token, &place).because(e))?;
        Self::new(&text, &place)
    }

    /// `Authorization: Bearer ...`, marked so that no log shows it.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).expect("a token is printable ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
