//! What a hub means by the status of an answer.

use ureq::Body;
use ureq::http::header::RETRY_AFTER;
use ureq::http::{HeaderMap, Response};

use super::client::Failure;
use super::error::{HubError, HubErrorKind as Kind};

/// Longest text of the hub's that is repeated, in characters.
const MAX_TEXT: usize = 300;

/// A refusal of the hub itself, about `place`.
pub(super) fn of_hub(response: &Response<Body>, place: &str, with_token: bool) -> Failure {
    let (status, headers) = (response.status().as_u16(), response.headers());
    let (kind, why) = match (status, text(headers, "x-error-code").as_str()) {
        (401, _) if with_token => (Kind::Unauthorized, "the hub does not take this token for it"),
        (401, _) => (
            Kind::Unauthorized,
            "it is private, gated or not there; if it exists, give a token that may read it (HF_TOKEN, --token-file)",
        ),
        (403, _) => (
            Kind::Gated,
            "its conditions are to be accepted on its page in a browser, by the account that the token belongs to",
        ),
        (404, "RevisionNotFound") => (Kind::NoRevision, "it has no branch, tag or commit of this name"),
        (404, "EntryNotFound") => (Kind::NoFile, "it was listed and is gone"),
        (404, _) => (Kind::NoRepository, "the hub knows no such repository, or not this revision of it"),
        _ => return passing_or_lasting(status, headers, place),
    };
    let said = text(headers, "x-error-message");
    let why = if said.is_empty() { why.to_owned() } else { format!("{why}; the hub says: {said}") };
    Failure::Lasting(HubError::new(kind, place).because(why))
}

/// A refusal of the storage that the hub redirected to; the address is good for a while only, so a new one may help.
pub(super) fn of_storage(response: &Response<Body>, host: &str) -> Failure {
    let status = response.status().as_u16();
    match status {
        401 | 403 | 404 => {
            Failure::Passing(HubError::new(Kind::Status, host).because(format!("status {status}")), None)
        }
        _ => passing_or_lasting(status, response.headers(), host),
    }
}

fn passing_or_lasting(status: u16, headers: &HeaderMap, place: &str) -> Failure {
    let kind = if status == 429 { Kind::Busy } else { Kind::Status };
    let error = HubError::new(kind, place).because(format!("status {status}"));
    match status {
        408 | 429 | 500.. => Failure::Passing(error, text(headers, RETRY_AFTER.as_str()).parse().ok()),
        _ => Failure::Lasting(error),
    }
}

/// A header's text, cut to what can be shown.
fn text(headers: &HeaderMap, name: &str) -> String {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect::<String>().trim().to_owned()
}
