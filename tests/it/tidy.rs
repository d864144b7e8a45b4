//! The rules that the compiler does not check: dependencies, where tasks begin, forbidden constructs, long lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which rooms each room may use (lib.rs, "Arrows"). `app` and `main` see everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("auth", &["model"]),
    ("bugs", &[]),
    ("protocol", &["model"]),
    ("broker", &["bugs", "model", "telemetry"]),
    ("router", &["bugs", "broker", "model", "telemetry"]),
    ("limits", &[]),
    ("ice", &["model"]),
    (
        "session",
        &[
            "auth",
            "bugs",
            "protocol",
            "drain",
            "router",
            "broker",
            "ice",
            "limits",
            "model",
            "telemetry",
        ],
    ),
    ("drain", &[]),
    // The arrow to protocol is the choice of the codec for a path.
    (
        "transport",
        &[
            "auth",
            "bugs",
            "protocol",
            "drain",
            "router",
            "broker",
            "ice",
            "limits",
            "model",
            "session",
            "telemetry",
        ],
    ),
    ("telemetry", &["model"]),
    ("webhooks", &["broker", "model", "router", "telemetry"]),
    ("healthcheck", &[]),
    ("revoke", &["healthcheck", "model"]),
    // Only the settings of each room, never its behaviour.
    (
        "config",
        &[
            "auth",
            "bugs",
            "transport",
            "router",
            "broker",
            "ice",
            "model",
            "session",
            "telemetry",
            "webhooks",
        ],
    ),
];

/// Crates that only one room knows.
const BORDERS: &[(&str, &[&str])] = &[
    ("redis::", &["broker/redis"]),
    ("deadpool_redis", &["broker/redis"]),
    ("axum", &["transport", "app.rs"]),
    (
        "serde_json",
        &[
            "protocol",
            "auth",
            "transport/http/wire.rs",
            "transport/admin/wire.rs",
            "webhooks/payload.rs",
            "revoke.rs",
        ],
    ),
    ("jsonwebtoken", &["auth"]),
    ("governor", &["limits"]),
    ("ipnet", &["config", "transport/proxies.rs"]),
    ("ppp", &["transport/proxies.rs"]),
    ("hmac::", &["ice.rs", "auth", "webhooks"]),
    ("opentelemetry", &["telemetry"]),
    ("prometheus::", &["telemetry"]),
];

/// The longest line: what two files side by side, or a review, show without wrapping.
const COLUMNS: usize = 120;

fn sources() -> BTreeMap<String, String> {
    read("src", &["rs"])
}

/// The files with these extensions in a folder of the repository, by their paths in it.
fn read(folder: &str, extensions: &[&str]) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    find(&root, extensions, &mut files);
    let name = |path: &PathBuf| {
        path.strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    files
        .iter()
        .map(|path| (name(path), std::fs::read_to_string(path).unwrap()))
        .collect()
}

fn find(folder: &Path, extensions: &[&str], into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_ours = !name.starts_with('.') && !["node_modules", "target"].contains(&name);
        if path.is_dir() && is_ours {
            find(&path, extensions, into);
        } else if path
            .extension()
            .is_some_and(|extension| extensions.iter().any(|known| extension == *known))
        {
            into.push(path);
        }
    }
}

/// What comes before the tests of a file, without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The rooms that a text uses by `crate::`.
fn used(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap(),
            None => rest
                .split(|message: char| !message.is_alphanumeric() && message != '_')
                .next()
                .unwrap(),
        };
        let first = |name: &str| name.trim().split("::").next().unwrap().to_owned();
        rooms.extend(names.split(',').map(first).filter(|name| !name.is_empty()));
    }
    rooms
}

#[test]
fn data_flows_one_way() {
    for (file, text) in sources() {
        let room = room(&file);
        if ["app", "main", "lib"].contains(&room) {
            continue;
        }
        let (_, allowed) = ARROWS
            .iter()
            .find(|(known, _)| *known == room)
            .unwrap_or_else(|| panic!("a new room: {file}"));
        for used in used(&code(&text)) {
            assert!(
                used == room || allowed.contains(&used.as_str()),
                "{file} uses {used}"
            );
        }
    }
}

/// What a session decides is a function of its state, an input and a moment.
#[test]
fn session_state_has_no_io() {
    let mut files = 0;
    for (file, text) in sources() {
        if !file.starts_with("session/state/") || file.contains("/histories/") {
            continue;
        }
        files += 1;
        let code = code(&text);
        for word in [
            "async ",
            ".await",
            "now()",
            "elapsed()",
            "spawn",
            "Mutex",
            "dyn Broker",
            "Router",
            "Receipts",
        ] {
            assert!(!code.contains(word), "{file} has {word}");
        }
    }
    assert!(files > 5, "the state was moved");
}

#[test]
fn each_external_crate_is_used_in_its_room_only() {
    for (file, text) in sources() {
        for (name, rooms) in BORDERS {
            let knows = code(&text).lines().any(|line| {
                line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|message| {
                        !message.is_alphanumeric() && message != '_' && message != ':'
                    }) && !line[..at].ends_with("mod ")
                })
            });
            // `broker::redis` is our room, and `redis::` with it in config, app and main.
            let ours = *name == "redis::" && ["app", "config", "main"].contains(&room(&file));
            assert!(
                !knows || ours || rooms.iter().any(|room| file.starts_with(room)),
                "{file} knows {name}"
            );
        }
    }
}

#[test]
fn tasks_begin_in_three_places_and_queues_are_bounded() {
    for (file, text) in sources() {
        let code = code(&text);
        let spawns = code.contains("tokio::spawn") || code.contains(".spawn(");
        assert!(
            !spawns
                || ["app.rs", "transport/listener.rs", "transport/http/homes.rs"]
                    .contains(&file.as_str()),
            "{file} spawns"
        );
        assert!(
            !code.contains("unbounded"),
            "{file} has a queue without a bound"
        );
        // The variable that chooses a seeded bug is not a setting.
        let may = ["main.rs", "bugs.rs"].contains(&file.as_str());
        let environment = code.contains("std::env::var") && !may;
        assert!(!environment, "{file} reads the environment");
    }
}

#[test]
fn files_open_with_one_sentence() {
    for (file, text) in sources() {
        assert!(
            text.starts_with("//! ") || file.ends_with("tests.rs"),
            "{file} does not say what it is for"
        );
    }
}

/// The names that follow a prefix: one, or a list in braces.
fn following(text: &str, prefix: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with([':']) || text[..at].ends_with(is_word) {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split("};").next().unwrap(),
            None => rest.split(|letter| !is_word(letter)).next().unwrap(),
        };
        let first = |name: &str| name.trim().split("::").next().unwrap().to_owned();
        names.extend(list.split([',', '{', '}']).map(first));
    }
    names
}

/// Which modules of a folder use which others of it.
fn siblings(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
    let room = format!("crate::{}::", folder.replace('/', "::"));
    for (file, text) in sources() {
        let Some(inside) = file.strip_prefix(&format!("{folder}/")) else {
            continue;
        };
        let is_test = file.contains("tests") || file.contains("histories");
        if inside == "mod.rs" || is_test {
            continue;
        }
        let module = inside.split(['/', '.']).next().unwrap();
        let levels = inside.split('/').count() - usize::from(inside.ends_with("/mod.rs"));
        let code = code(&text);
        let siblings = uses.entry(module.to_owned()).or_default();
        siblings.extend(following(&code, &"super::".repeat(levels)));
        siblings.extend(following(&code, &room));
        siblings.remove(module);
    }
    let modules: BTreeSet<String> = uses.keys().cloned().collect();
    for siblings in uses.values_mut() {
        siblings.retain(|name| modules.contains(name));
    }
    uses
}

#[test]
fn no_room_has_a_circle_of_files() {
    let folders: BTreeSet<String> = sources()
        .keys()
        .filter_map(|file| file.rsplit_once('/').map(|(folder, _)| folder.to_owned()))
        .collect();
    for folder in folders {
        let mut uses = siblings(&folder);
        // Whoever uses nobody else is in no circle. What is left at the end is one, or leads to one.
        while let Some(last) = uses.iter().find(|(_, used)| used.is_empty()) {
            let last = last.0.clone();
            uses.remove(&last);
            for siblings in uses.values_mut() {
                siblings.remove(&last);
            }
        }
        assert!(uses.is_empty(), "a circle in {folder}: {uses:?}");
    }
}

#[test]
fn files_are_short() {
    for (file, text) in sources() {
        let rooms = ["session", "router", "broker"];
        let most = if rooms.contains(&room(&file)) {
            300
        } else {
            400
        };
        let lines = text.lines().count();
        assert!(lines <= most, "{file} has {lines} lines");
    }
}

#[test]
fn lines_are_short() {
    // Table rows, links and raw strings cannot be broken.
    let is_exempt =
        |line: &str| line.starts_with('|') || line.contains("://") || line.contains("r#\"");
    // These pages are made of other files, whose lines they keep.
    let is_made =
        |file: &str| file.ends_with("configuration.md") || file.ends_with("-reference.md");
    for (file, text) in read("", &["rs", "lua", "md"]) {
        if is_made(&file) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(
                columns <= COLUMNS || is_exempt(line),
                "{file}:{} has {columns} columns",
                number + 1
            );
        }
    }
}

/// The README is read in ten minutes; everything else is in the book.
#[test]
fn the_readme_is_short() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(
        lines <= 200 && words <= 1200,
        "{lines} lines, {words} words"
    );
}
