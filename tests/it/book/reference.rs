//! Pages that are made from the code: the settings, and the types of the client library.
//!
//! `make reference` writes them anew; a test compares.

use std::fmt::Write as _;

use super::root;

/// Set by `make reference`.
const WRITES: &str = "WRITE_REFERENCE";

const CONFIGURATION: &str = "docs/src/configuration.md";
const CLIENT: &str = "docs/src/client-reference.md";

const ABOUT_CONFIGURATION: &str = "\
# Configuration

<!-- Made from src/config/default.toml by `make reference`. -->

Every setting has a default. Later layers win: defaults, a file (`--config node.toml`), the environment, the command
line (`--listen`, `--admin-listen`, `--node-id`, `--redis-url`, and `--set KEY=VALUE` for every setting).

| | |
| --- | --- |
| durations | `30s`, `500ms`, `2m`, `1h 30m` |
| sizes | `65536`, `64KiB`, `1MB` |
| truth values | `true` or `false`, `yes` or `no`, `on` or `off`, `1` or `0` |
| lists | TOML in a file; elsewhere words with commas between them |
| an empty value | counts as unset |

`switchboard config check` prints what is in effect and where each setting comes from, with secrets hidden. A
configuration with mistakes is refused with exit code 78, and all of them are named.
";

const ABOUT_CLIENT: &str = "\
# Client reference

<!-- Made from client/switchboard.d.ts by `make reference`. -->

Everything that the [client library](client.md) exports: functions and classes first, then types.
";

#[test]
fn the_configuration_page_is_that_of_the_defaults() {
    let defaults = std::fs::read_to_string(root().join("src/config/default.toml")).unwrap();
    is_written(CONFIGURATION, &configuration(&defaults));
}

#[test]
fn the_client_reference_is_that_of_the_types() {
    let types = std::fs::read_to_string(root().join("client/switchboard.d.ts")).unwrap();
    is_written(CLIENT, &client(&types));
}

fn is_written(page: &str, text: &str) {
    let path = root().join(page);
    if std::env::var_os(WRITES).is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "{page} is out of date: run `make reference`"
    );
}

/// The page of settings: a chapter for each table, a heading for each setting, and its comment.
fn configuration(defaults: &str) -> String {
    let mut page = ABOUT_CONFIGURATION.to_owned();
    let (mut table, mut comment) = (String::new(), Vec::new());
    // The first comment is about the file.
    let (_, settings) = defaults.split_once("\n\n").unwrap();
    page.push_str("\n## General\n");
    for line in settings.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        } else if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut table);
            writeln!(page, "\n## {table}").unwrap();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let name = if table.is_empty() {
                key.to_owned()
            } else {
                format!("{table}.{key}")
            };
            let variable = name.to_uppercase().replace('.', "__");
            let value = match value {
                "\"\"" => "empty".to_owned(),
                value => format!("`{value}`"),
            };
            writeln!(
                page,
                "\n### {name}\n\nDefault: {value}. Environment: `SWITCHBOARD_{variable}`."
            )
            .unwrap();
            page.push_str(&prose(&comment));
            comment.clear();
        }
    }
    page
}

/// Comment lines as Markdown: indented ones are code.
fn prose(comment: &[&str]) -> String {
    let mut text = String::from("\n");
    let mut is_code = false;
    for line in comment {
        if line.starts_with("  ") != is_code {
            is_code = !is_code;
            text.push_str(if is_code { "\n```text\n" } else { "```\n\n" });
        }
        text.push_str(if is_code { &line[2..] } else { line });
        text.push('\n');
    }
    if is_code {
        text.push_str("```\n");
    }
    text
}

/// The page of types: each export under its name, as the compiler reads it, with its comments.
fn client(types: &str) -> String {
    let (mut values, mut shapes) = (Vec::new(), Vec::new());
    for statement in statements(types) {
        let Some(at) = statement.find("export ") else {
            continue;
        };
        let name = statement[at..]
            .split(|letter: char| !letter.is_alphanumeric())
            .find(|word| {
                ![
                    "",
                    "export",
                    "declare",
                    "class",
                    "function",
                    "const",
                    "interface",
                    "type",
                ]
                .contains(word)
            });
        let Some(name) = name else { continue };
        let is_value = statement[at..].starts_with("export declare");
        let into = if is_value { &mut values } else { &mut shapes };
        into.push(format!("\n## {name}\n\n```ts\n{}\n```\n", statement.trim()));
    }
    // The classes that a page uses come last in the file.
    values.reverse();
    [ABOUT_CLIENT.to_owned(), values.concat(), shapes.concat()].concat()
}

/// The top-level statements of a file of types, each with the comment before it.
fn statements(types: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    for line in types.lines() {
        let begins = line.starts_with("/**") || line.starts_with("export ");
        let last = statements.last_mut().unwrap();
        let is_comment = last.trim_end().ends_with("*/") && !last.contains("export ");
        if begins && !is_comment {
            statements.push(String::new());
        }
        if line.contains("#private;") || line.contains("protected constructor();") {
            continue;
        }
        // Lines of the book are short.
        let line = if line.len() > 120 {
            line.replace("> extends ", ">\n    extends ")
        } else {
            line.to_owned()
        };
        let last = statements.last_mut().unwrap();
        last.push_str(&line);
        last.push('\n');
    }
    statements
}
