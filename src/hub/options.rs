//! Which hub is asked, as whom, and where what it sends is kept.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{HubError, HubErrorKind as Kind};
use super::token::Token;

/// The hub that is asked where nothing else is said.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How a hub is asked.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Scheme, host and where needed port and path of the hub or of a mirror of it. Default: [`DEFAULT_ENDPOINT`].
    pub endpoint: String,
    /// Opens private and gated repositories. Default: none.
    pub token: Option<Token>,
    /// The directory that holds `models--organisation--name`, shared with the hub's own clients.
    pub cache: PathBuf,
    /// Take everything from the cache and open no connection. Default: no.
    pub offline: bool,
    /// Files that are fetched at once. Default: 4. Range: 1..=16.
    pub jobs: usize,
    /// Longest silence of the hub. Default: 30 s.
    pub silence: Duration,
    /// How often and how long a failing hub is waited for.
    pub patience: Patience,
}

/// How often and how long a hub is waited for that refuses (429), fails (5xx), or breaks connections off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries in a row without a mebibyte of progress. Default: 6.
    pub tries: u32,
    /// Pause after the first failure; each further one is twice as long, up to `longest`. Default: 1 s.
    pub first: Duration,
    /// Longest pause that is made, also where the hub asks for more (`Retry-After`). Default: 5 min.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 6, first: Duration::from_secs(1), longest: Duration::from_secs(300) }
    }
}

impl Patience {
    /// The pause after the `failures`-th failure in a row, from 1 on.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest)
    }
}

/// Where a token is looked for.
#[derive(Debug, Clone, Default)]
pub enum TokenFrom {
    /// Where the hub's own clients look.
    #[default]
    Variables,
    /// In a file.
    File(PathBuf),
    /// Nowhere: there is none.
    Nowhere,
}

/// What goes before the variables.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The cache.
    pub cache: Option<PathBuf>,
    /// The token; of no use offline.
    pub token: TokenFrom,
    /// No connection is opened.
    pub offline: bool,
}

impl HubOptions {
    /// What the variables say that the hub's own clients read, behind what is `asked`: `HF_ENDPOINT`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME`, `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`HubErrorKind::Token`](Kind::Token) of a token that is none, [`HubErrorKind::Io`](Kind::Io) where no variable
    /// says where a cache may be.
    pub fn from_env(asked: Asked) -> Result<Self, HubError> {
        Self::from_variables(asked, |name| env::var_os(name))
    }

    /// The same with `variable` in the place of the environment.
    ///
    /// # Errors
    /// As [`HubOptions::from_env`].
    pub fn from_variables(asked: Asked, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| get(name).map(PathBuf::from);
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| path("HOME").map(|home| home.join(".cache/huggingface")));
        let cache = asked.cache.or_else(|| path("HF_HUB_CACHE")).or_else(|| home.as_ref().map(|home| home.join("hub")));
        let nowhere = || HubError::new(Kind::Io, "HF_HUB_CACHE").because("neither it nor HF_HOME nor HOME is set");
        let offline = text("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
        let offline = asked.offline || ["1", "ON", "YES", "TRUE"].contains(&offline.as_str());
        let token = match (asked.token, text("HF_TOKEN")) {
            (TokenFrom::Nowhere, _) => None,
            _ if offline => None,
            (TokenFrom::File(file), _) => Some(Token::read(&file)?),
            (TokenFrom::Variables, Some(token)) => Some(Token::new(&token, "HF_TOKEN")?),
            (TokenFrom::Variables, None) => {
                let file = path("HF_TOKEN_PATH").or_else(|| home.map(|home| home.join("token")));
                file.filter(|file| file.exists()).map(|file| Token::read(&file)).transpose()?
            }
        };
        Ok(Self {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token,
            cache: cache.ok_or_else(nowhere)?,
            offline,
            jobs: 4,
            silence: Duration::from_secs(30),
            patience: Patience::default(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<HubOptions, HubError> {
        HubOptions::from_variables(Asked::default(), |name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into())
        })
    }

    #[test]
    fn the_variables_of_the_hubs_own_clients_count() {
        let plain = options(&[("HOME", "/home/u")]).unwrap();
        assert_eq!(plain.cache, PathBuf::from("/home/u/.cache/huggingface/hub"));
        assert_eq!((plain.endpoint.as_str(), plain.offline, plain.token), (DEFAULT_ENDPOINT, false, None));
        let cache = |variables: &[(&str, &str)]| options(variables).unwrap().cache;
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
        let mirror = options(&[("HOME", "/h"), ("HF_ENDPOINT", "https://mirror.lan"), ("HF_HUB_OFFLINE", "yes")]);
        assert_eq!(mirror.as_ref().unwrap().endpoint, "https://mirror.lan");
        assert!(mirror.unwrap().offline);
        assert!(!options(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert_eq!(options(&[]).unwrap_err().kind(), Kind::Io);
    }

    #[test]
    fn tokens_come_from_the_variable_before_the_file_and_are_not_shown() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let token = |variables: &[(&str, &str)]| options(variables).unwrap().token.unwrap();
        assert_eq!(token(&[("HF_HOME", at)]), Token::new("hf_file", "").unwrap());
        let both = options(&[("HF_HOME", at), ("HF_TOKEN", "hf_variable")]).unwrap();
        assert_eq!(both.token, Some(Token::new("hf_variable", "").unwrap()));
        assert!(!format!("{both:?}").contains("hf_"), "{both:?}");
        let broken = options(&[("HF_HOME", at), ("HF_TOKEN", "hf_se\ncret")]).unwrap_err();
        assert_eq!((broken.kind(), broken.place()), (Kind::Token, "HF_TOKEN"));
        // What is asked for goes before a variable that is wrong, and before one that is not there.
        let asked = |token, offline| Asked { cache: Some("/c".into()), token, offline };
        let broken = |asked| HubOptions::from_variables(asked, |name| (name == "HF_TOKEN").then(|| "se\ncret".into()));
        let file = home.path().join("token");
        let found = broken(asked(TokenFrom::File(file), false)).unwrap();
        assert_eq!((found.token, found.cache), (Some(Token::new("hf_file", "").unwrap()), PathBuf::from("/c")));
        assert_eq!(broken(asked(TokenFrom::Nowhere, false)).unwrap().token, None);
        assert_eq!(broken(asked(TokenFrom::Variables, true)).unwrap().token, None);
    }
}
