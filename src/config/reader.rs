//! Reads single settings from the layers, and collects the mistakes in them.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use config::{File, FileFormat, Value, ValueKind};

use super::layers::{Layers, Origin, Sources, defaults, list, toml};
use super::values;

/// The merged sources, and the mistakes so far.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) layers: Layers,
    pub(super) secrets: Vec<&'static str>,
    /// What to print for settings that are not in effect as they are written, or that contain secrets.
    pub(super) shown: HashMap<&'static str, String>,
}

impl Reader {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            layers: Layers::of(sources),
            secrets: Vec::new(),
            shown: HashMap::new(),
        }
    }

    /// Records a mistake in a setting.
    pub(super) fn mistake(&mut self, key: &str, what: &str) {
        let Some(setting) = self.layers.settings.get(key) else {
            return;
        };
        let value = if self.secrets.contains(&key) {
            "…".to_owned()
        } else {
            toml(&setting.value)
        };
        let from = match &setting.origin {
            Origin::Default => String::new(),
            origin => format!(" (from {origin})"),
        };
        self.record(format!("{key} = {value}{from} {what}"));
    }

    /// An environment variable without our prefix.
    pub(super) fn foreign(&self, variable: &str) -> Option<&str> {
        self.layers.foreign.get(variable).map(String::as_str)
    }

    /// The names of such variables that begin so.
    pub(super) fn foreign_names(&self, start: &str) -> Vec<String> {
        let names = self.layers.foreign.keys();
        let names = names.filter(|name| name.starts_with(start));
        names.cloned().collect()
    }

    /// Records a mistake in such a variable.
    pub(super) fn foreign_mistake(&mut self, variable: &str, what: &str) {
        let value = self.foreign(variable).unwrap_or_default();
        let value = if is_secret(variable, value) {
            "…"
        } else {
            value
        };
        self.record(format!("{variable} = {value:?} {what}"));
    }

    /// Each mistake once: one variable can be of several signals.
    fn record(&mut self, mistake: String) {
        if !self.layers.mistakes.contains(&mistake) {
            self.layers.mistakes.push(mistake);
        }
    }

    /// Reads a text.
    pub(super) fn text(&mut self, key: &'static str) -> String {
        if let Ok(text) = self.value(key).into_string() {
            return text;
        }
        self.mistake(key, "is not a text");
        String::new()
    }

    /// Reads a text that is never printed.
    pub(super) fn secret(&mut self, key: &'static str) -> String {
        self.secrets.push(key);
        self.text(key)
    }

    /// Reads a secret, from the setting or from the first line of the file that the other setting names.
    pub(super) fn secret_or_file(&mut self, key: &'static str, file: &'static str) -> String {
        let (secret, path) = (self.secret(key), self.text(file));
        if path.is_empty() {
            return secret;
        }
        if !secret.is_empty() {
            self.mistake(file, &format!("is set, and so is {key}: set one of them"));
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => text.lines().next().unwrap_or_default().trim().to_owned(),
            Err(error) => {
                self.mistake(file, &format!("is wrong: cannot read the file: {error}"));
                String::new()
            }
        }
    }

    /// Reads a number that `what` describes.
    pub(super) fn number<T: FromStr + fmt::Display>(&mut self, key: &'static str, what: &str) -> T {
        let read = |text: &str| values::number(text).ok_or_else(|| format!("is not {what}"));
        let number: T = self.converted(key, read);
        self.show(key, number.to_string());
        number
    }

    /// Reads a number of bytes.
    pub(super) fn size(&mut self, key: &'static str) -> usize {
        let bytes = self.converted(key, values::size);
        self.show(key, bytes.to_string());
        bytes
    }

    /// Reads a truth value.
    pub(super) fn boolean(&mut self, key: &'static str) -> bool {
        let value = self.converted(key, values::boolean);
        self.show(key, value.to_string());
        value
    }

    /// Reads an address to listen on.
    pub(super) fn address(&mut self, key: &'static str) -> SocketAddr {
        let address = self.converted(key, values::address);
        self.show(key, format!("\"{address}\""));
        address
    }

    /// Reads a duration.
    pub(super) fn duration(&mut self, key: &'static str) -> Duration {
        let duration = self.converted(key, values::duration);
        self.show(key, format!("\"{}\"", humantime::format_duration(duration)));
        duration
    }

    /// Reads one of these words.
    pub(super) fn one_of<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let find = |text: &str| {
            let found = words
                .iter()
                .position(|word| word.eq_ignore_ascii_case(text));
            found.ok_or_else(|| format!("is not one of {}", words.join(", ")))
        };
        let (word, choice) = choices[self.converted(key, find)];
        self.show(key, format!("\"{word}\""));
        choice
    }

    /// Reads a list: TOML, or values separated by commas.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        let values = self.entries(key).into_iter();
        let values: Result<Vec<String>, _> = values.map(Value::into_string).collect();
        let Ok(values) = values else {
            self.mistake(key, "is not a list of texts");
            return Vec::new();
        };
        self.show(key, list(&values));
        values
    }

    /// Reads a list of texts and tables: TOML, JSON, or texts separated by commas.
    pub(super) fn entries(&mut self, key: &'static str) -> Vec<Value> {
        let value = self.value(key);
        if let ValueKind::Array(values) = value.kind {
            return values;
        }
        let text = value.into_string().unwrap_or_default();
        if !text.starts_with('[') {
            let words = text.split(',').map(str::trim);
            let words = words.filter(|word| !word.is_empty());
            return words.map(Value::from).collect();
        }
        let written = [
            (format!("{{\"list\": {text}}}"), FileFormat::Json),
            (format!("list = {text}"), FileFormat::Toml),
        ];
        let read = written.into_iter().find_map(|(text, format)| {
            let source = File::from_str(&text, format);
            let list = config::Config::builder().add_source(source).build();
            list.and_then(|list| list.get_array("list")).ok()
        });
        read.unwrap_or_else(|| {
            self.mistake(
                key,
                "is not a list: write [\"a\", \"b\"], or values separated by commas",
            );
            Vec::new()
        })
    }

    /// Like [`entries`](Self::entries), for a list that may contain secrets.
    pub(super) fn secret_entries(&mut self, key: &'static str) -> Vec<Value> {
        self.secrets.push(key);
        self.entries(key)
    }

    /// Sets what to print for a setting, as TOML.
    pub(super) fn show(&mut self, key: &'static str, shown: String) {
        self.shown.insert(key, shown);
    }

    /// Converts the text of a setting. If it cannot be, records the mistake and returns the default.
    pub(super) fn converted<T>(
        &mut self,
        key: &'static str,
        convert: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let wrong = match self.value(key).into_string() {
            Ok(text) => match convert(&text) {
                Ok(value) => return value,
                Err(what) => what,
            },
            Err(_) => "must be one value".to_owned(),
        };
        self.mistake(key, &wrong);
        let default = defaults().into_iter().find(|(known, _)| known == key);
        let default = default.and_then(|(_, value)| value.into_string().ok());
        // A test reads every default.
        default
            .and_then(|text| convert(&text).ok())
            .unwrap_or_else(|| unreachable!("the default of {key} cannot be read"))
    }

    fn value(&self, key: &str) -> Value {
        let setting = self.layers.settings.get(key);
        setting.map_or_else(|| Value::from(""), |setting| setting.value.clone())
    }
}

/// Whether the value of a variable of OpenTelemetry may have a token or a password in it.
pub(super) fn is_secret(variable: &str, value: &str) -> bool {
    variable.ends_with("_HEADERS") || value.contains('@')
}
