//! The origins of the web pages that may connect (`limits.origins`).

use axum::http::HeaderValue;
use url::{Host, Url};

const WRONG: &str = "is not an origin such as https://example.org";

/// Which web pages may connect. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// As browsers write them, perhaps with `*` for a label; none if all may connect.
    allowed: Vec<String>,
}

impl Origins {
    /// Reads the words of a list. An error names the word, and says what to write instead.
    pub fn parse(words: &[String]) -> Result<Self, Vec<String>> {
        let (mut allowed, mut mistakes) = (Vec::new(), Vec::new());
        for word in words {
            match read(word) {
                Ok(origins) => allowed.extend(origins),
                Err(what) => mistakes.push(format!("{word:?} {what}")),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        if allowed.iter().any(|origin| origin == "*") {
            allowed.clear();
        }
        Ok(Self { allowed })
    }

    /// Whether pages of this origin may connect.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else {
            return self.allowed.is_empty();
        };
        let matches = |allowed: &String| match allowed.split_once('*') {
            None => allowed == origin,
            Some((before, after)) => origin
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|label| !label.is_empty() && !label.contains(['.', ':', '/'])),
        };
        self.allowed.is_empty() || self.allowed.iter().any(matches)
    }

    /// The origins as browsers write them; none for all.
    pub fn as_slice(&self) -> &[String] {
        &self.allowed
    }
}

/// The origins that a word means. A host alone is that of a page over https, and on this machine over http too.
fn read(word: &str) -> Result<Vec<String>, String> {
    if word == "*" || word.eq_ignore_ascii_case("null") {
        return Ok(vec![word.to_ascii_lowercase()]);
    }
    if word.contains([' ', ';', ',', '|']) {
        return Err(format!("{WRONG}: separate origins with commas"));
    }
    if word.contains("://") {
        return Ok(vec![canonical(word)?]);
    }
    let bare = word.trim_start_matches('/');
    let https = format!("https://{bare}");
    if bare.trim_end_matches('/').ends_with(":80") {
        return Ok(vec![canonical(&format!("http://{bare}"))?]);
    }
    let mut origins = vec![canonical(&https)?];
    if is_this_machine(&https) {
        origins.push(canonical(&format!("http://{bare}"))?);
    }
    Ok(origins)
}

fn is_this_machine(url: &str) -> bool {
    let url = Url::parse(url).ok();
    match url.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// An origin as browsers write it: lower case, no default port, nothing after the port.
fn canonical(word: &str) -> Result<String, String> {
    let url = Url::parse(word).map_err(|error| format!("{WRONG} ({error})"))?;
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let port = url.port().map(|port| format!(":{port}"));
    let place = format!("{host}{}", port.unwrap_or_default());
    let origin = format!("{}://{place}", url.scheme());
    match url.scheme() {
        "ws" => {
            return Err(format!(
                "is of a WebSocket; the page's is needed: write http://{place}"
            ));
        }
        "wss" => {
            return Err(format!(
                "is of a WebSocket; the page's is needed: write https://{place}"
            ));
        }
        "file" => {
            return Err("is null for browsers, if a page comes from a file: write null".to_owned());
        }
        _ => {}
    }
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-*[]:".contains(letter);
    if host.is_empty() || !host.chars().all(fits) {
        return Err(WRONG.to_owned());
    }
    let is_more = !["", "/"].contains(&url.path())
        || url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some();
    if is_more {
        return Err(format!(
            "has more than a scheme, a host and a port, which no browser sends: write {origin}"
        ));
    }
    let stars = host.matches('*').count();
    let is_label = host.strip_prefix("*.").is_some_and(|rest| !rest.is_empty());
    if stars > 1 || (stars == 1 && !is_label) {
        return Err(
            "has a * that is not the whole first label, as in https://*.example.org; * alone allows all pages"
                .to_owned(),
        );
    }
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(word: &str) -> Origins {
        Origins::parse(&[word.to_owned()]).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn allow(word: &str, origin: &'static str) -> bool {
        origins(word).allow(&HeaderValue::from_static(origin))
    }

    #[test]
    fn what_has_one_meaning_is_taken_as_browsers_write_it() {
        for (written, origin) in [
            ("https://x.org", "https://x.org"),
            ("https://x.org/", "https://x.org"),
            ("HTTPS://X.Org", "https://x.org"),
            ("https://x.org:443", "https://x.org"),
            ("http://x.org:80/", "http://x.org"),
            ("https://x.org:8443", "https://x.org:8443"),
            ("x.org", "https://x.org"),
            ("x.org/", "https://x.org"),
            ("//x.org", "https://x.org"),
            ("x.org:8443", "https://x.org:8443"),
            ("x.org:443", "https://x.org"),
            ("x.org:80", "http://x.org"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
            ("localhost:3000", "http://localhost:3000"),
            ("localhost:3000", "https://localhost:3000"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:3000", "http://[::1]:3000"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("null", "null"),
            ("*", "https://anything.example"),
            ("https://*.x.org", "https://a.x.org"),
            ("https://*.X.org:443/", "https://a-1.x.org"),
            ("*.x.org", "https://a.x.org"),
            ("http://*.x.org:8080", "http://a.x.org:8080"),
        ] {
            assert!(allow(written, origin), "{written} {:?}", origins(written));
            let is_all = written == "*";
            assert_eq!(
                allow(written, "https://elsewhere.example"),
                is_all,
                "{written}"
            );
        }
        assert!(Origins::default().allow(&HeaderValue::from_static("https://x.org")));
    }

    #[test]
    fn a_star_is_one_label() {
        for origin in [
            "https://x.org",
            "https://.x.org",
            "https://a.b.x.org",
            "http://a.x.org",
            "https://a.x.org:8443",
            "https://a.x.org.evil.example",
            "https://evil.example/.x.org",
            "https://evil.example:1.x.org",
            "https://ax.org",
        ] {
            assert!(!allow("https://*.x.org", origin), "{origin}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused_with_the_right_spelling() {
        for (written, right) in [
            ("https://x.org/app", "write https://x.org"),
            ("https://X.org:443/app/", "write https://x.org"),
            ("x.org/app", "write https://x.org"),
            ("https://x.org?a=b", "write https://x.org"),
            ("https://x.org/#a", "write https://x.org"),
            ("https://me@x.org", "write https://x.org"),
            ("wss://x.org", "write https://x.org"),
            ("ws://x.org:8080/ws", "write http://x.org:8080"),
            ("file:///home/me/index.html", "write null"),
            ("https://x*.org", "https://*.example.org"),
            ("https://a.*.org", "https://*.example.org"),
            ("https://*.*.x.org", "https://*.example.org"),
            ("https://*", "* alone allows all"),
            ("http*://x.org", "such as https://example.org"),
            ("https://x.org:*", "such as https://example.org"),
            ("https://", "such as https://example.org"),
            ("https//x.org", "write https://https"),
            ("https://x.org https://y.org", "with commas"),
            ("x.org;y.org", "with commas"),
            ("^https://.*$", "such as https://example.org"),
            (".x.org!", "such as https://example.org"),
        ] {
            let mistakes = Origins::parse(&[written.to_owned()]).unwrap_err();
            assert!(mistakes[0].contains(right), "{written}: {mistakes:?}");
            assert!(mistakes[0].contains(written), "{mistakes:?}");
        }
    }
}
