//! Code blocks that are data: transcripts and settings; and which blocks there are.

use testing::{Cluster, node};

use super::{blocks, root};
use crate::transcripts::play;

/// Shell blocks that no test can run, by the word behind `sh`, with the reason.
pub(super) const NOT_RUN: &[(&str, &str)] = &[
    (
        "docker",
        "needs a Docker engine: `make compose-test` does what these blocks do",
    ),
    (
        "kubernetes",
        "needs a cluster: `make lint` builds and validates what they apply",
    ),
    ("install", "changes the machine, as root"),
    ("long", "takes minutes: these are targets of the Makefile"),
];

/// Languages of blocks that nothing runs, because they are no commands and no messages.
const SHOWN: &[&str] = &[
    "text", "acl", "nginx", "ini", "html", "js", "ts", "rust", "json", "python",
];

#[test]
fn every_block_says_what_it_is() {
    for block in blocks() {
        let is_known = match block.info.split_once(' ') {
            Some(("sh", word)) => {
                word == "servers" || NOT_RUN.iter().any(|(known, _)| *known == word)
            }
            Some(_) => false,
            None => {
                ["sh", "console", "transcript", "toml"].contains(&&*block.info)
                    || SHOWN.contains(&&*block.info)
            }
        };
        assert!(is_known, "{}: what is ```{}?", block.at, block.info);
    }
}

/// A block that is not run may still not name what is gone.
#[test]
fn blocks_that_are_not_run_name_files_and_targets_that_exist() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let mut seen = 0;
    for block in blocks() {
        let is_shell = block.info == "sh" || block.info.starts_with("sh ");
        for line in block.text.lines().filter(|_| is_shell) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2) {
                if pair[0] == "make" {
                    seen += 1;
                    let target = format!("\n{}: ", pair[1]);
                    assert!(makefile.contains(&target), "{}: make {}", block.at, pair[1]);
                }
            }
            for word in words {
                if word.starts_with("deploy/") {
                    seen += 1;
                    assert!(root().join(word).exists(), "{}: {word}", block.at);
                }
            }
        }
    }
    assert!(seen > 5, "only {seen} files and targets");
}

#[tokio::test]
async fn transcripts_over_memory() {
    play_all(&Cluster::in_memory(2, &[]).await).await;
}

#[tokio::test]
async fn transcripts_over_redis() {
    play_all(&Cluster::over_redis(2, &[]).await).await;
}

async fn play_all(cluster: &Cluster) {
    let blocks = blocks();
    let transcripts = blocks.iter().filter(|block| block.info == "transcript");
    let mut played = 0;
    for block in transcripts {
        play(cluster, &block.at, &block.text).await;
        played += 1;
    }
    assert!(played >= 10, "only {played} transcripts");
}

#[test]
fn settings_are_accepted() {
    for block in blocks().iter().filter(|block| block.info == "toml") {
        // What it names exists.
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap();
        let (certificate, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("jwt-secret"), "5e".repeat(32)).unwrap();
        let here = folder.path().to_str().unwrap();
        let file = folder.path().join("node.toml");
        std::fs::write(&file, block.text.replace("/etc/switchboard", here)).unwrap();
        let output = std::process::Command::new(node::binary())
            .args(["config", "check", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}:\n{text}", block.at);
    }
}
