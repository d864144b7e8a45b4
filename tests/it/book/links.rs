//! Links: every page of the book is in its summary, and no link inside the repository is dead.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::{Page, pages, root};

/// Where the links of a text lead: `[text](target)` and `![text](target)`.
fn links(text: &str) -> Vec<&str> {
    let ends = text.match_indices("](");
    ends.filter_map(|(at, _)| text[at + 2..].split_once(')').map(|(target, _)| target))
        .collect()
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ if letter.is_alphanumeric() => Some(letter),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

fn anchors(page: &Page) -> Vec<String> {
    let prose = page.prose();
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
        plain
    })
}

#[test]
fn no_link_is_dead() {
    let pages = pages();
    let anchors: HashMap<&Path, Vec<String>> = pages
        .iter()
        .map(|page| (page.path.as_path(), anchors(page)))
        .collect();
    let mut links_seen = 0;
    for page in &pages {
        let (at, prose) = (page.path.display(), page.prose());
        for link in links(&prose) {
            // Elsewhere, or what GitHub serves beside a repository.
            if link.contains("://") || link.starts_with("../../actions/") {
                continue;
            }
            links_seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.path.clone(),
                file => plain(&page.path.parent().unwrap().join(file)),
            };
            assert!(root().join(&target).exists(), "{at}: {link} is not there");
            if !anchor.is_empty() {
                let has = anchors.get(target.as_path()).expect("a page of the book");
                assert!(
                    has.iter().any(|known| known == anchor),
                    "{at}: {link} has no such heading; there are {has:?}"
                );
            }
            // The book is published without the rest of the repository.
            let is_outside = page.path.starts_with("docs") && !target.starts_with("docs/src");
            assert!(!is_outside, "{at}: {link} leads out of the book");
        }
    }
    assert!(links_seen > 80, "only {links_seen} links");
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = Page::read("docs/src/SUMMARY.md");
    let listed = links(&summary.text);
    for page in pages() {
        let Ok(path) = page.path.strip_prefix("docs/src") else {
            continue;
        };
        let path = path.to_str().unwrap();
        assert!(
            path == "SUMMARY.md" || listed.contains(&path),
            "{path} is not in docs/src/SUMMARY.md"
        );
    }
}
