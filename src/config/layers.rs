//! The layers of the configuration: defaults, a file, the environment, the command line. Later ones win, and an empty
//! value sets nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Value, ValueKind};

use super::DEFAULTS;
use super::names::{self, PREFIX};
use crate::bugs;

/// The sources of settings besides the defaults; later ones win.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment variables.
    pub environment: HashMap<String, String>,
    /// Settings from the command line.
    pub flags: Vec<(String, String)>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("the command line"),
        }
    }
}

/// A value, and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The merged sources.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Every setting, by its key.
    pub(super) settings: BTreeMap<String, Setting>,
    /// Environment variables without our prefix, for example those of OpenTelemetry.
    pub(super) foreign: BTreeMap<String, String>,
    pub(super) mistakes: Vec<String>,
}

impl Layers {
    pub(super) fn of(sources: Sources) -> Self {
        let mut layers = Self::default();
        for (key, value) in defaults() {
            let origin = Origin::Default;
            layers.settings.insert(key, Setting { value, origin });
        }
        if let Some(path) = sources.file {
            layers.add_file(&path);
        }
        let mut environment: Vec<_> = sources.environment.into_iter().collect();
        environment.sort();
        for (variable, value) in environment {
            layers.add_variable(variable, value.trim());
        }
        for (key, value) in sources.flags {
            let written = key.trim().to_lowercase();
            if layers.settings.contains_key(&written) {
                layers.set_text(&written, value.trim(), Origin::Flag);
            } else {
                layers.unknown(&format!("--set {key}"), &key, str::to_owned);
            }
        }
        layers
    }

    fn add_file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("cannot read the file {}: {error}", path.display());
                return self.mistakes.push(what);
            }
        };
        let settings = match flat(&text) {
            Ok(settings) => settings,
            Err(error) => {
                let what = format!("{} is not valid TOML: {error}", path.display());
                return self.mistakes.push(what);
            }
        };
        for (key, value) in settings {
            let origin = Origin::File(path.to_owned());
            match &value.kind {
                _ if !self.settings.contains_key(&key) => {
                    self.unknown(&format!("{key} in {origin}"), &key, str::to_owned);
                }
                ValueKind::String(text) => self.set_text(&key, text.trim(), origin),
                _ => drop(self.settings.insert(key, Setting { value, origin })),
            }
        }
    }

    fn add_variable(&mut self, variable: String, value: &str) {
        // An empty one counts as unset, as OpenTelemetry has it too: `${NAME:-}` of a compose file.
        if value.is_empty() {
            return;
        }
        let Some(rest) = variable.strip_prefix(PREFIX) else {
            let is_setting = |rest: &&str| self.settings.contains_key(&names::key_of(rest));
            if let Some(rest) = names::misspelt_prefix(&variable).filter(is_setting) {
                self.unknown(&variable, rest, names::variable_of);
            }
            self.foreign.insert(variable, value.to_owned());
            return;
        };
        let key = names::key_of(rest);
        if self.settings.contains_key(&key) && variable == names::variable_of(&key) {
            self.set_text(&key, value, Origin::Variable(variable));
        } else if !names::is_kubernetes_link(rest, value) && !bugs::VARIABLES.contains(&&*variable)
        {
            self.unknown(&variable, rest, names::variable_of);
        }
    }

    fn set_text(&mut self, key: &str, text: &str, origin: Origin) {
        if text.is_empty() {
            return;
        }
        let quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
        if text.contains(char::REPLACEMENT_CHARACTER) {
            self.mistakes
                .push(format!("{key} (from {origin}) is not valid UTF-8"));
        } else if quoted('"') || quoted('\'') {
            self.mistakes.push(format!(
                "{key} (from {origin}) has quotes around its value, which are part of it: write it without"
            ));
        } else {
            let value = Value::from(text);
            self.settings
                .insert(key.to_owned(), Setting { value, origin });
        }
    }

    fn unknown(&mut self, shown: &str, written: &str, spell: fn(&str) -> String) {
        let known = self.settings.keys().map(String::as_str);
        let hint = names::nearest(known, written)
            .map(|key| format!("; did you mean {}?", spell(key)))
            .unwrap_or_default();
        self.mistakes
            .push(format!("{shown} is not a setting{hint}"));
    }
}

/// The default of every setting.
pub(super) fn defaults() -> Vec<(String, Value)> {
    flat(DEFAULTS).unwrap_or_else(|error| unreachable!("default.toml cannot be read: {error}"))
}

/// The settings of a TOML text by their dotted names. An error has no line of the text, which may be a password's.
fn flat(text: &str) -> Result<Vec<(String, Value)>, String> {
    fn visit(prefix: &str, value: Value, into: &mut Vec<(String, Value)>) {
        match value.kind {
            ValueKind::Table(table) if prefix.is_empty() || !table.is_empty() => {
                for (key, value) in table {
                    let key = match prefix {
                        "" => key,
                        _ => format!("{prefix}.{key}"),
                    };
                    visit(&key, value, into);
                }
            }
            _ => into.push((prefix.to_owned(), value)),
        }
    }
    let source = File::from_str(text, FileFormat::Toml);
    let read = config::Config::builder().add_source(source).build();
    let read = read.map_err(|error| {
        let text = error.to_string();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let place = lines.first().copied().unwrap_or_default();
        let cause = lines
            .iter()
            .skip(1)
            .rfind(|line| !line.is_empty() && !line.contains('|'));
        match cause.filter(|cause| !text.is_empty() && !cause.contains(['"', '`', '='])) {
            Some(cause) => format!("{place}: {cause}"),
            None => place.to_owned(),
        }
    })?;
    let mut all = Vec::new();
    visit("", read.cache, &mut all);
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

/// A text as TOML, with what cannot be seen escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\'' => quoted.push(character),
            _ if character.escape_debug().len() > 1 => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\U{:08X}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

/// A list of texts as TOML.
pub(super) fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A value as TOML.
pub(super) fn toml(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(values) => {
            let values: Vec<String> = values.iter().map(toml).collect();
            format!("[{}]", values.join(", "))
        }
        ValueKind::String(text) => quoted(text),
        other => other.to_string(),
    }
}
