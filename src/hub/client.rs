//! HTTP, with what a token and a redirect may do.
//!
//! Redirects are followed here rather than by the HTTP client: the first answer names the commit and the hash of a file
//! and the last one has its bytes, and the token goes to the hub's own scheme, host and port and nowhere else.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, IF_RANGE, LOCATION, RANGE};
use ureq::http::uri::{Authority, Scheme};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::error::{HubError, HubErrorKind as Kind};
use super::options::HubOptions;
use super::refusal;
use super::token::Token;
use crate::cryptography::{self, LACKING};

/// Most redirects in a row.
const MAX_REDIRECTS: usize = 8;

/// Longest answer that is read whole, in bytes: a listing of 20,000 files has about 5 MB.
const MAX_ANSWER: u64 = 16 << 20;

/// Why a request failed, and whether it is worth trying again.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may go better later; not before so many seconds where the hub says so.
    Passing(HubError, Option<u64>),
    /// It will not.
    Lasting(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Lasting(error)
    }
}

/// From which byte on a file is wanted, and of which edition of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Start {
    /// The first byte. 0 is the whole file.
    pub byte: u64,
    /// The edition's tag, where one is known; of another edition the whole file is sent.
    pub tag: Option<String>,
}

/// An answer, and what was said on the way to it.
#[derive(Debug)]
pub(super) struct Answer {
    /// Headers of the hub's own answer, before any redirect to where the bytes are.
    pub first: HeaderMap,
    /// The answer itself.
    pub last: Response<Body>,
}

/// A hub, asked as one user.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    /// Without a slash at its end.
    endpoint: String,
    origin: Origin,
    token: Option<Token>,
    cryptography: Option<Arc<CryptoProvider>>,
}

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        // A name in front of the host would be a password in an address, and easily taken for the host.
        let bare = !uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        bare.then_some(Self { https, host, port })
    }

    /// Host and port.
    fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn is_this_machine(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

impl Client {
    /// Prepares to ask the hub; asks nothing yet.
    ///
    /// # Errors
    /// An endpoint that is none, a token that would travel in plain text, a processor that TLS does not run on.
    pub(super) fn new(options: &HubOptions) -> Result<Self, HubError> {
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        if let Some((before, after)) = endpoint.rsplit_once('@') {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            return Err(HubError::new(Kind::Endpoint, format!("{scheme}://...@{after}"))
                .because("holds a name or password; give a token with HF_TOKEN or --token-file"));
        }
        let wrong = |why: &'static str| HubError::new(Kind::Endpoint, &endpoint).because(why);
        let uri: Uri = endpoint.parse().map_err(|_| wrong("is not an address"))?;
        let origin = Origin::of(&uri).ok_or_else(|| wrong("is no http or https address of a host"))?;
        if uri.query().is_some() {
            return Err(wrong("holds a query"));
        }
        if options.token.is_some() && !origin.https && !origin.is_this_machine() {
            return Err(HubError::new(Kind::Token, &endpoint)
                .because("it would travel in plain text; take an https endpoint, or no token (--no-token)"));
        }
        let cryptography = cryptography::provider();
        let agent = agent(options, &origin, cryptography.clone());
        let client = Self { agent, endpoint, origin, token: options.token.clone(), cryptography };
        client.check_tls(&client.origin)?;
        Ok(client)
    }

    fn check_tls(&self, origin: &Origin) -> Result<(), HubError> {
        if origin.https && self.cryptography.is_none() {
            return Err(HubError::new(Kind::Tls, &origin.host)
                .because(format!("{LACKING}; pull on another machine and copy its cache")));
        }
        Ok(())
    }

    /// The address of a path below the endpoint.
    pub(super) fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Asks for a short answer and reads it whole.
    pub(super) fn read(&self, address: &str, place: &str) -> Result<Vec<u8>, Failure> {
        let answer = self.get(address, &Start::default(), place)?;
        let body = answer.last.into_body();
        body.into_with_config().limit(MAX_ANSWER).read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => {
                HubError::new(Kind::Answer, place).because(format!("it is longer than {MAX_ANSWER} bytes")).into()
            }
            other => broken(other, &self.origin.shown()),
        })
    }

    /// Asks, following redirects; gives an answer of 200, 206 or 416, and everything else as an error about `place`.
    pub(super) fn get(&self, address: &str, from: &Start, place: &str) -> Result<Answer, Failure> {
        let nowhere = |why: &str| HubError::new(Kind::Answer, place).because(format!("it redirects {why}"));
        let mut uri: Uri = address.parse().map_err(|_| nowhere("to no address"))?;
        let mut first = None;
        for _ in 0..MAX_REDIRECTS {
            let origin = Origin::of(&uri).ok_or_else(|| nowhere("to no http or https address"))?;
            if self.origin.https && !origin.https {
                return Err(nowhere("from https to plain text").into());
            }
            self.check_tls(&origin)?;
            let response = self.ask(&uri, &origin, from)?;
            let headers = response.headers().clone();
            let status = response.status();
            let own = origin == self.origin;
            let first = &*first.get_or_insert(headers);
            if !status.is_redirection() {
                return match status.as_u16() {
                    200 | 206 | 416 => Ok(Answer { first: first.clone(), last: response }),
                    _ if own => Err(refusal::of_hub(&response, place, self.token.is_some())),
                    _ => Err(refusal::of_storage(&response, &origin.shown())),
                };
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            uri = follow(&uri, location.unwrap_or_default()).ok_or_else(|| nowhere("to no address"))?;
        }
        Err(nowhere("without end").into())
    }

    fn ask(&self, uri: &Uri, origin: &Origin, from: &Start) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(uri).header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| *origin == self.origin) {
            request = request.header(AUTHORIZATION, token.header());
        }
        if from.byte > 0 {
            request = request.header(RANGE, format!("bytes={}-", from.byte));
            if let Some(tag) = &from.tag {
                request = request.header(IF_RANGE, tag);
            }
        }
        request.call().map_err(|error| broken(error, &origin.shown()))
    }
}

fn agent(options: &HubOptions, origin: &Origin, cryptography: Option<Arc<CryptoProvider>>) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("sam4mllm/", env!("CARGO_PKG_VERSION")))
        .max_response_header_size(64 << 10)
        .timeout_connect(Some(options.silence))
        .timeout_recv_response(Some(options.silence))
        .timeout_per_read(Some(options.silence))
        .timeout_per_write(Some(options.silence));
    if origin.is_this_machine() {
        // A proxy is for what lies beyond this machine.
        config = config.proxy(None);
    }
    if let Some(provider) = cryptography {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        config = config.tls_config(tls);
    }
    config.build().into()
}

/// Where a redirect from `base` leads: a whole address, or a path on the same host.
fn follow(base: &Uri, location: &str) -> Option<Uri> {
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{}://{rest}", base.scheme_str()?).parse().ok();
    }
    if location.starts_with('/') {
        let authority: &Authority = base.authority()?;
        return format!("{}://{authority}{location}", base.scheme_str()?).parse().ok();
    }
    location.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some())
}

/// A connection that did not come about or broke, at `place`: never the whole address, which may hold a signature.
pub(super) fn broken(error: ureq::Error, place: &str) -> Failure {
    let refused = match &error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => is_tls(error),
        _ => false,
    };
    let kind = if refused { Kind::Tls } else { Kind::Connection };
    let error = HubError::new(kind, place).because(error);
    if refused { Failure::Lasting(error) } else { Failure::Passing(error, None) }
}

/// Whether an error of a stream is one of TLS, such as a certificate that nobody vouches for.
fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::Asked;

    #[test]
    fn redirects_lead_to_addresses_and_paths() {
        let base: Uri = "https://hub.org:8443/a/b?c".parse().unwrap();
        for (location, found) in [
            ("/x/y?z", "https://hub.org:8443/x/y?z"),
            ("https://cdn.org/q?s=1", "https://cdn.org/q?s=1"),
            ("//cdn.org/q", "https://cdn.org/q"),
        ] {
            assert_eq!(follow(&base, location).unwrap().to_string(), found);
        }
        for location in ["", "x/y", "?q", "ht tp://x"] {
            assert_eq!(follow(&base, location), None, "{location}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(origin("https://Hub.org/a"), origin("https://hub.org:443/b"));
        for other in ["http://hub.org", "https://hub.org:444", "https://hub.org.evil.org", "https://xhub.org"] {
            assert_ne!(origin(other), origin("https://hub.org"), "{other}");
        }
        for none in ["ftp://hub.org", "https://hub.org@evil.org/", "https://hf_x@hub.org/", "/a"] {
            assert_eq!(origin(none), None, "{none}");
        }
        assert!(origin("http://[::1]:80/").unwrap().is_this_machine());
        assert!(!origin("http://10.0.0.1/").unwrap().is_this_machine());
    }

    #[test]
    fn a_token_does_not_travel_in_plain_text() {
        let mut options =
            HubOptions::from_variables(Asked::default(), |name| (name == "HOME").then(|| "/nowhere".into())).unwrap();
        options.token = Some(Token::new("hf_secret", "test").unwrap());
        let kind = |endpoint: &str| {
            let options = HubOptions { endpoint: endpoint.to_owned(), ..options.clone() };
            Client::new(&options).map(|_| ()).map_err(|e| e.kind())
        };
        assert_eq!(kind("http://mirror.lan"), Err(Kind::Token));
        assert_eq!(kind("http://127.0.0.1:80"), Ok(()));
        for endpoint in ["mirror.lan", "ftp://mirror.lan", "", "https://", "https://a b", "https://a.org/?b"] {
            assert_eq!(kind(endpoint), Err(Kind::Endpoint), "{endpoint}");
        }
    }
}
