//! Settings, as `NAME=value` lines of the environment, then an empty line and a file: none crashes the reader, no
//! secret is printed, and a node started with the effective settings has the same ones.

#![no_main]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use switchboard::config::{Config, Sources};

/// The value of every secret.
const SECRET: &str = "Rumpelstiltskin";
/// Variables that have secrets, each with a value that has one.
const SECRETS: [(&str, &str); 3] = [
    ("SWITCHBOARD_ICE__TURN_SECRET", SECRET),
    ("SWITCHBOARD_REDIS__URL", "redis://user:Rumpelstiltskin@host:1/"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Rumpelstiltskin"),
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Some settings are files, and reading these has no end.
    if ["/dev", "/proc", "/sys"].iter().any(|path| text.contains(path)) {
        return;
    }
    let (environment, file) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut environment: HashMap<String, String> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in SECRETS {
        environment.entry(name.to_owned()).or_insert(value.to_owned());
    }
    let written = check(environment, file);
    assert!(!written.0.contains(SECRET), "{}", written.0);
    match written.1 {
        Err(mistakes) => assert!(!mistakes.contains(SECRET), "{mistakes}"),
        Ok(()) => {
            // What is hidden, or is no setting, cannot be given back.
            let is_given = |line: &&str| !["#", "***", "(hidden)"].iter().any(|mark| line.contains(mark));
            let given: Vec<&str> = written.0.lines().map(setting).filter(is_given).collect();
            let (effective, result) = check(HashMap::new(), &given.join("\n"));
            if let Err(mistakes) = result {
                panic!("{given:#?}\n{mistakes}");
            }
            for line in given {
                assert!(effective.lines().map(setting).any(|other| other == line), "{line}\n{effective}");
            }
        }
    }
});

/// The effective settings, and whether there are mistakes.
fn check(environment: HashMap<String, String>, file: &str) -> (String, Result<(), String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("switchboard.toml");
    fs::write(&path, file).expect("a file");
    let sources = Sources {
        file: Some(path.clone()),
        environment,
        flags: Vec::new(),
    };
    let (effective, config) = Config::check(sources);
    (without(&effective, &path), config.map(drop).map_err(|mistakes| mistakes.to_string()))
}

/// The name of the file is another one each time.
fn without(text: &str, path: &Path) -> String {
    text.replace(&*path.to_string_lossy(), "FILE")
}

/// A line without where the value comes from.
fn setting(line: &str) -> &str {
    line.rsplit_once("  # ").map_or(line, |(setting, _)| setting).trim_end()
}
