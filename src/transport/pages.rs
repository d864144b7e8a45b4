//! The web pages and the client library: files built into the binary.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::{Endpoints, library, peerjs};

/// Content security policy of the pages: resources of this node only, nothing inline, no framing.
/// `'self'` includes WebSockets of the same host.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; \
     media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";
/// The browser permissions that the pages may ask for.
const PAGE_PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self)";
/// Lets pages of other origins import the client library. It is public, and browsers request it
/// without credentials.
const IMPORTABLE: [(&str, &str); 2] = [
    ("access-control-allow-origin", "*"),
    ("cross-origin-resource-policy", "cross-origin"),
];

/// Cache policies: ask again each time, because another version of the node may serve another file;
/// or keep for ever.
const REVALIDATED: &str = "no-cache";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TYPES: &str = "application/typescript; charset=utf-8";
const ICON: &str = "image/svg+xml";

macro_rules! parts {
    ($($kind:ident $path:literal),* $(,)?) => {
        &[$((concat!("/page/", $path), $kind, include_str!(concat!("pages/", $path)))),*]
    };
}

/// The parts of the pages: path, content type and text.
const PARTS: &[(&str, &str, &str)] = parts![
    CSS "page.css",
    ICON "icon.svg",
    SCRIPT "page.js",
    SCRIPT "page/conversation.js",
    SCRIPT "page/chat.js",
    SCRIPT "page/paths.js",
    SCRIPT "page/people.js",
    SCRIPT "page/log.js",
    SCRIPT "page/ring.js",
    SCRIPT "page/media.js",
    SCRIPT "page/words.js",
    SCRIPT "page/dom.js",
    SCRIPT "doctor.js",
    SCRIPT "doctor/verdict.js",
    SCRIPT "doctor/doors.js",
    SCRIPT "doctor/users.js",
    SCRIPT "doctor/relays.js",
    SCRIPT "doctor/seen.js",
    SCRIPT "doctor/words.js",
    SCRIPT "doctor/probes.js",
    SCRIPT "doctor/lines.js",
    SCRIPT "doctor/peers.js",
];

/// A built-in file with its entity tag.
#[derive(Clone, Debug)]
pub(super) struct File {
    text: &'static str,
    kind: &'static str,
    tag: String,
}

impl File {
    fn new(kind: &'static str, text: &'static str) -> Self {
        let digest = hex::encode(Sha256::digest(text));
        Self {
            text,
            kind,
            tag: format!("\"{}\"", &digest[..16]),
        }
    }

    /// The file, or 304 if the client's copy is current (`If-None-Match`, RFC 9110, section
    /// 13.1.2).
    fn answer(&self, headers: &HeaderMap, caching: &'static str) -> Response {
        let mut response = if self.is_known_to(headers) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.kind)], self.text).into_response()
        };
        let headers = response.headers_mut();
        let tag = HeaderValue::from_str(&self.tag);
        headers.extend(tag.ok().map(|tag| (header::ETAG, tag)));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        response
    }

    fn is_known_to(&self, headers: &HeaderMap) -> bool {
        let known = headers.get_all(header::IF_NONE_MATCH).iter();
        let known = known.filter_map(|tags| tags.to_str().ok());
        known.flat_map(|tags| tags.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.trim_start_matches("W/") == self.tag
        })
    }
}

/// Answers `GET /` without an upgrade: the page for browsers; for programs the `PeerServer`
/// information if PeerJS is served at `/`, otherwise a short text.
pub(super) fn root(endpoints: &Endpoints, headers: &HeaderMap) -> Response {
    let is_peerjs = endpoints.peerjs().is_some_and(|peerjs| peerjs.path == "/");
    let mut response = match &endpoints.front_page {
        Some(page) if prefers_html(headers) => show(page, headers),
        _ if is_peerjs && !prefers_html(headers) => peerjs::info(endpoints, headers),
        _ => notice(endpoints),
    };
    let answer = response.headers_mut();
    answer.insert(header::VARY, HeaderValue::from_static("accept"));
    answer.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

/// The page at `/`.
pub(super) fn front_page() -> File {
    File::new(HTML, include_str!("pages/index.html"))
}

/// The doctor page, which diagnoses why a call fails, and the parts of all pages.
pub(super) fn pages() -> Router<Endpoints> {
    let doctor = File::new(HTML, include_str!("pages/doctor.html"));
    let doctor = get(async move |headers: HeaderMap| show(&doctor, &headers));
    let pages = Router::new().route("/doctor", doctor);
    PARTS.iter().fold(pages, |pages, (path, kind, text)| {
        let file = File::new(kind, text);
        let part = get(async move |headers: HeaderMap| file.answer(&headers, REVALIDATED));
        pages.route(path, part)
    })
}

/// The client library, for pages of any origin.
pub(super) fn client() -> Router<Endpoints> {
    let part = |kind, text| {
        let file = File::new(kind, text);
        get(async move |headers: HeaderMap, uri: Uri| {
            let file = file.answer(&headers, cache_policy(&uri));
            (IMPORTABLE, file)
        })
    };
    Router::new()
        .route("/client/switchboard.js", part(SCRIPT, library::script()))
        .route(
            "/client/switchboard.d.ts",
            part(TYPES, include_str!("../../client/switchboard.d.ts")),
        )
}

/// A URL with this node's version never changes its content. Any other URL depends on the node that
/// answers.
fn cache_policy(uri: &Uri) -> &'static str {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    let version = parameters.find_map(|parameter| parameter.strip_prefix("v="));
    if version == Some(env!("CARGO_PKG_VERSION")) {
        IMMUTABLE
    } else {
        REVALIDATED
    }
}

fn show(page: &File, headers: &HeaderMap) -> Response {
    let policies = [
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("permissions-policy"),
            PAGE_PERMISSIONS,
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    (policies, page.answer(headers, REVALIDATED)).into_response()
}

/// The text at `/` for programs and for people without a browser.
fn notice(endpoints: &Endpoints) -> Response {
    let text = format!(
        "Switchboard {}: a WebRTC signalling server.\n\n\
         Connect a WebSocket to this address and send\n\n    {{\"type\":\"login\",\"name\":\"UserA\"}}\n\n\
         then offer, answer, candidate and leave, each with the \"name\" of the other user.\n\
         From a terminal: npx wscat -c ws://<this host and port>\n\nThis is node {}.\n",
        env!("CARGO_PKG_VERSION"),
        endpoints.router.node(),
    );
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Whether the client accepts `text/html` explicitly and at least as much as text. `*/*` alone does
/// not count: programs send it.
fn prefers_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|accept| accept.to_str().ok());
    let accepted: Vec<(&str, f32)> = accepted
        .flat_map(|accept| accept.split(','))
        .map(weighted_range)
        .collect();
    let weight_of = |kind| {
        let range = accepted.iter().find(|(range, _)| *range == kind);
        range.map(|(_, weight)| *weight)
    };
    let text = ["text/plain", "text/*", "*/*"]
        .into_iter()
        .find_map(weight_of);
    weight_of("text/html").is_some_and(|html| html > 0.0 && html >= text.unwrap_or_default())
}

/// One media range of an `Accept` header with its weight (RFC 9110, section 12.5.1).
fn weighted_range(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let weight = parts.find_map(|parameter| parameter.strip_prefix("q="));
    (
        kind,
        weight.map_or(1.0, |weight| weight.parse().unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        prefers_html(&headers)
    }

    #[test]
    fn browsers_get_html_and_programs_get_text() {
        assert!(accepts(
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
        ));
        assert!(accepts("text/plain;q=0.5, text/html"));
        assert!(accepts("text/html; q=0.9, */*;q=0.1"));
        for program in [
            "*/*",
            "text/*",
            "text/plain",
            "application/json",
            "text/html;q=0",
            "text/html;q=0.5, text/plain",
            "text/html;q=x",
            "",
        ] {
            assert!(!accepts(program), "{program}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }
}
