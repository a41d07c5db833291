//! The page's files, inside the binary, and what browsers are told to allow it.

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue};
use hyper::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

/// A file of the page.
pub(super) struct File {
    pub kind: HeaderValue,
    pub bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The file at `path`.
pub(super) fn find(path: &str) -> Option<File> {
    let (kind, text) = match path {
        "/" => (HTML, include_str!("page/index.html")),
        "/style.css" => (CSS, include_str!("page/style.css")),
        "/icon.svg" => (SVG, include_str!("page/icon.svg")),
        "/page.js" => (SCRIPT, include_str!("page/page.js")),
        "/panel.js" => (SCRIPT, include_str!("page/panel.js")),
        "/source.js" => (SCRIPT, include_str!("page/source.js")),
        "/picture.js" => (SCRIPT, include_str!("page/picture.js")),
        "/wire.js" => (SCRIPT, include_str!("page/wire.js")),
        // Written by build.rs.
        "/contract.js" => (SCRIPT, include_str!(concat!(env!("OUT_DIR"), "/contract.js"))),
        _ => return None,
    };
    Some(File { kind: HeaderValue::from_static(kind), bytes: text.as_bytes() })
}

/// Nothing from elsewhere, no script but the page's own files, and no place in a frame of another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the headers that every answer has.
pub(super) fn protect(headers: &mut HeaderMap) {
    let all = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("permissions-policy"), "camera=(self), microphone=(), geolocation=()"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // A node that was updated shows its own page.
        (CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
