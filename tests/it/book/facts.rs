//! Tables of the book that list what the code has: errors, close codes, and the tests that hold the guarantees.

use switchboard::model::{CloseReason, LeaveReason, Refusal};

use super::{Page, root};

/// The names in the first column of the page's tables.
fn first_column(page: &Page) -> Vec<&str> {
    let rows = page.text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(" |").next())
        .map(|cell| cell.trim_matches('`'))
        .collect()
}

#[test]
fn every_code_is_explained() {
    let page = Page::read("docs/src/protocol/errors.md");
    let explained = first_column(&page);
    for code in Refusal::CODES {
        assert!(explained.contains(&code), "the error {code}");
    }
    for code in CloseReason::ALL.into_iter().filter_map(CloseReason::code) {
        let code = code.to_string();
        assert!(explained.contains(&&*code), "the close code {code}");
    }
    let page = Page::read("docs/src/protocol/messages.md");
    let explained = first_column(&page);
    let heard = LeaveReason::ALL
        .into_iter()
        // Never said: who replaces a session is the same user, who goes on with the calls.
        .filter(|reason| *reason != LeaveReason::Replaced);
    for reason in heard {
        assert!(explained.contains(&reason.as_str()), "{reason:?}");
    }
}

/// `tests/….rs` and the names behind it, up to the next file.
#[test]
fn every_test_of_a_guarantee_exists() {
    let page = Page::read("docs/src/guarantees.md");
    let mut file = String::new();
    let mut tests = 0;
    for word in page.text.split('`') {
        let is_name = word.contains('_') && !word.contains([' ', '/', '.', ':']);
        if word.starts_with("tests/") || word.starts_with("src/") {
            file = std::fs::read_to_string(root().join(word)).expect(word);
        } else if is_name && file.contains("fn ") {
            let test = format!("fn {word}(");
            assert!(file.contains(&test), "{word} is not where the page says");
            tests += 1;
        }
    }
    assert!(tests > 15, "only {tests} tests");
}
