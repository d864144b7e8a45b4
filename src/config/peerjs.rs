//! Reads the settings of PeerJS.

use super::reader::Reader;
use crate::transport::peerjs::{RESERVED, Settings};

/// Reads the section `[peerjs]`; `None` if PeerJS is disabled.
pub(super) fn read(reader: &mut Reader) -> Option<Settings> {
    let enabled = reader.boolean("peerjs.enabled");
    let path = reader.text("peerjs.path");
    let settings = Settings {
        path: format!("/{}/", path.trim_matches('/')).replace("//", "/"),
        keys: reader.list("peerjs.keys"),
        strict_key: reader.boolean("peerjs.strict_key"),
        allow_discovery: reader.boolean("peerjs.allow_discovery"),
        sends_leave: reader.boolean("peerjs.leave"),
        expire_timeout: reader.duration("peerjs.expire_timeout"),
        alive_timeout: reader.duration("peerjs.alive_timeout"),
        grace: reader.duration("peerjs.grace"),
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._~-".contains(&byte);
    let first = settings.path.split('/').nth(1).unwrap_or_default();
    if !settings.path.bytes().all(is_plain) || RESERVED.contains(&first) {
        reader.mistake(
            "peerjs.path",
            "must be a path such as / or /myapp, of letters, digits, dots, hyphens, underscores and tildes, \
             and must not begin with /v1, /client, /page, /doctor or /ws",
        );
    }
    let fits = |key: &String| {
        let clashes = settings.path == "/" && RESERVED.contains(&key.as_str());
        !key.is_empty() && key.len() <= 64 && !clashes
    };
    if settings.keys.is_empty() || !settings.keys.iter().all(fits) {
        reader.mistake(
            "peerjs.keys",
            "must list one or more keys of 1 to 64 bytes; at path / none of them may be v1, client, page, doctor or ws",
        );
    }
    for (key, time) in [
        ("peerjs.expire_timeout", settings.expire_timeout),
        ("peerjs.alive_timeout", settings.alive_timeout),
    ] {
        if time.is_zero() {
            reader.mistake(key, "must be longer than 0s");
        }
    }
    enabled.then_some(settings)
}
