//! The client library as nodes serve it: its modules, joined into one file.
//!
//! A page needs one request instead of forty, and cannot mix modules of nodes with different versions.

use std::sync::LazyLock;

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        &[$(include_str!(concat!("../../client/src/", $name))),*]
    };
}

/// Each after those that it needs. Each name at the top of a module is there once in all of them.
const MODULES: &[&str] = modules![
    "util.js",
    "chunks.js",
    "errors.js",
    "events.js",
    "channel.js",
    "channels.js",
    "media.js",
    "pairing.js",
    "stats.js",
    "call_media.js",
    "clock.js",
    "negotiation.js",
    "patience.js",
    "recovery.js",
    "call.js",
    "calls.js",
    "address.js",
    "codes.js",
    "confirm.js",
    "backoff.js",
    "diagnose.js",
    "poll.js",
    "slots.js",
    "sse.js",
    "http.js",
    "websocket.js",
    "link.js",
    "liveness.js",
    "connector.js",
    "debug.js",
    "login.js",
    "pacer.js",
    "outbox.js",
    "page.js",
    "presence.js",
    "store.js",
    "world.js",
    "engine.js",
    "session.js",
    "client.js",
    "version.js",
    "index.js",
];

/// The module at `/client/switchboard.js`.
pub(super) fn script() -> &'static str {
    static JOINED: LazyLock<String> = LazyLock::new(|| join(MODULES));
    &JOINED
}

/// The modules without their imports, exports and comments, and what the last one exports.
fn join(modules: &[&str]) -> String {
    let mut joined = String::new();
    let mut exported = Vec::new();
    for module in modules {
        for line in without_comments(module).lines() {
            let code = line.trim_start();
            if code.is_empty() || code.starts_with("//") || line.starts_with("import ") {
                continue;
            }
            if let Some((names, _)) = line
                .strip_prefix("export { ")
                .and_then(|rest| rest.split_once(" } from "))
            {
                exported.push(names.to_owned());
                continue;
            }
            joined.push_str(line.strip_prefix("export ").unwrap_or(line));
            joined.push('\n');
        }
    }
    format!("{joined}export {{ {} }}\n", exported.join(", "))
}

/// A module without its `/** … */`, which say the types.
fn without_comments(module: &str) -> String {
    let mut parts = module.split("/**");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once("*/").map_or("", |(_, code)| code));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_modules_have_no_imports_and_what_the_last_one_exports() {
        let one = "/** A type. @type {string} */\nexport const one = /** @type {any} */ (1)\n";
        let two = "import { one } from './one.js'\n// Why.\n\
                   export class Two {\n  /**\n   * Says it.\n   */\n  say() {}\n}\n";
        let index = "export { one } from './one.js'\nexport { Two } from './two.js'\n";
        assert_eq!(
            join(&[one, two, index]),
            "const one =  (1)\nclass Two {\n  say() {}\n}\nexport { one, Two }\n"
        );
    }

    #[test]
    fn every_module_of_the_library_is_joined_after_those_that_it_needs() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("client/src");
        let files = std::fs::read_dir(&folder).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let names: Vec<_> = names.filter(|name| name != "types.d.ts").collect();
        assert_eq!(names.len(), MODULES.len(), "{names:?}");
        let this = include_str!("library.rs");
        let place = |name: &str| this.find(&format!("    \"{name}\",\n")).unwrap();
        for name in &names {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            for line in text.lines().filter(|line| line.starts_with("import ")) {
                let needed = line.split("'./").nth(1).unwrap().trim_end_matches('\'');
                assert!(place(needed) < place(name), "{name} needs {needed}");
            }
        }
    }
}
