//! Which pages may talk to the node through a browser.
//!
//! A browser opens a WebSocket to anywhere for any page, so the node looks at where the page is from (`Origin`). That
//! alone is not enough: a name that an attacker owns can be made to point at the node's address (DNS rebinding), and then
//! `Origin` and `Host` agree. So without TLS, which names cannot be rebound under, the host is an IP address or
//! `localhost`, or the one that the settings name. Programs send no `Origin`; they are no browser that could be misled.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::http::uri::Authority;

/// Whether `text` is an origin: scheme, host and, if it is not the usual one, port.
pub(in crate::server) fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    !authority.as_str().contains('@') && text == format!("{scheme}://{authority}")
}

/// Whether a request with these headers may be answered; `own` is the further origin of the settings.
///
/// # Errors
/// Why not.
pub(super) fn check(headers: &HeaderMap, encrypted: bool, own: Option<&str>) -> Result<(), &'static str> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let host = host.ok_or("send one Host header")?;
    let Some(origin) = headers.get(ORIGIN) else {
        let owns = own.and_then(|own| own.split_once("://")).is_some_and(|(_, name)| host == name);
        return if owns || trusted(&host, encrypted) { Ok(()) } else { Err(STRANGE_HOST) };
    };
    if own.is_some_and(|own| origin == own) {
        return Ok(());
    }
    let scheme = if encrypted { "https" } else { "http" };
    if origin.as_bytes() != format!("{scheme}://{host}").as_bytes() {
        return Err("this page is from elsewhere; the node's own is at /, and `web_origin` allows another");
    }
    if trusted(&host, encrypted) { Ok(()) } else { Err(STRANGE_HOST) }
}

const STRANGE_HOST: &str = "in plain text, ask under an IP address, localhost, or the host of `web_origin`";

fn trusted(host: &Authority, encrypted: bool) -> bool {
    let name = host.host();
    encrypted
        || name.eq_ignore_ascii_case("localhost")
        || name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_from_addresses() {
        for good in ["https://robot.example", "http://10.0.0.7:8080", "https://[::1]:8443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["robot.example", "https://robot.example/", "ftp://robot.example", "https://a@b", "https://", "null"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn other_pages_and_rebound_names_are_refused() {
        let cases = [
            // Host, Origin, TLS, whether it is let in.
            ("127.0.0.1:8080", Some("http://127.0.0.1:8080"), false, true),
            ("localhost:8080", Some("http://localhost:8080"), false, true),
            ("[::1]:8080", Some("http://[::1]:8080"), false, true),
            ("127.0.0.1:8080", None, false, true),
            ("127.0.0.1:8080", Some("http://evil.example"), false, false),
            ("127.0.0.1:8080", Some("http://127.0.0.1:9090"), false, false),
            ("127.0.0.1:8080", Some("https://127.0.0.1:8080"), false, false),
            ("127.0.0.1:8080", Some("null"), false, false),
            ("evil.example:8080", Some("http://evil.example:8080"), false, false),
            ("evil.example:8080", None, false, false),
            ("robot.lan:8443", Some("https://robot.lan:8443"), true, true),
            ("robot.lan:8443", Some("https://evil.example"), true, false),
            // Behind a proxy that keeps the host or does not.
            ("127.0.0.1:8080", Some("https://robot.example"), false, true),
            ("robot.example", Some("https://robot.example"), false, true),
            ("robot.example", None, false, true),
            ("robot.example", Some("http://robot.example"), false, false),
        ];
        for (host, origin, encrypted, fine) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a value"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().expect("a value"));
            }
            let outcome = check(&headers, encrypted, Some("https://robot.example"));
            assert_eq!(outcome.is_ok(), fine, "{host} {origin:?} {encrypted}: {outcome:?}");
        }
        assert!(check(&HeaderMap::new(), false, None).is_err(), "no host");
    }
}
