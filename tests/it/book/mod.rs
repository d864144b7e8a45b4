//! The documentation: the book in `docs/` and the README, held to a live server and to the code.
//!
//! Every code block says in which language it is. What its language and the word behind it mean:
//!
//! | block | what becomes of it |
//! | --- | --- |
//! | `transcript` | played on two nodes, over memory and over Redis (`transcripts.rs` has the format) |
//! | `sh` | run by bash, with a node and a Redis at the usual ports; it must succeed |
//! | `console` | the same, and what each command (`$ …`) prints is compared; `…` stands for anything |
//! | `sh servers` | each line is started, and two users talk through the first and the last |
//! | `sh docker` and so on | not run, for the reason in [`blocks::NOT_RUN`]; its files and `make` targets exist |
//! | `toml` | `switchboard config check` accepts it |

mod blocks;
mod facts;
mod links;
mod reference;
mod shell;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page: its path in the repository, and its text.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        Self {
            path: path.into(),
            text,
        }
    }

    /// Its code blocks.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            let Some(info) = line.trim_start().strip_prefix("```") else {
                if let Some(block) = &mut open {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                continue;
            };
            if let Some(block) = open.take() {
                blocks.push(block);
            } else {
                open = Some(Block {
                    at: format!("{}:{}", self.path.display(), number + 1),
                    info: info.trim().to_owned(),
                    text: String::new(),
                });
            }
        }
        assert!(
            open.is_none(),
            "{}: a block has no end",
            self.path.display()
        );
        blocks
    }

    /// Its text without code blocks and code spans.
    fn prose(&self) -> String {
        let mut is_code = false;
        let lines = self.text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A code block: where it begins, what is behind the three backticks, and its lines.
struct Block {
    at: String,
    info: String,
    text: String,
}

/// The README and every page of the book.
fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".to_owned()];
    let mut folders = vec![PathBuf::from("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    paths.sort();
    let pages: Vec<Page> = paths.iter().map(|path| Page::read(path)).collect();
    assert!(pages.len() > 20, "the book was moved");
    pages
}

/// The code blocks of all pages.
fn blocks() -> Vec<Block> {
    pages().iter().flat_map(Page::blocks).collect()
}
