//! Reads single settings from layered sources, and collects the mistakes in them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use config::{Environment, File, FileFormat, Value, ValueKind};

use super::DEFAULTS;
use crate::bugs;

/// The prefix of our environment variables.
const PREFIX: &str = "SWITCHBOARD";

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

/// All mistakes in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The configuration has {} mistake(s):", self.0.len())?;
        for mistake in &self.0 {
            writeln!(f, "  {mistake}")?;
        }
        write!(
            f,
            "src/config/default.toml explains every setting; `switchboard config` prints the effective ones."
        )
    }
}

/// The merged sources, and the mistakes so far.
#[derive(Debug)]
pub(super) struct Reader {
    settings: config::Config,
    /// The environment variable of each setting that was set by one; error texts name it.
    variables: HashMap<String, String>,
    /// Environment variables without our prefix, for example those of OpenTelemetry.
    foreign: HashMap<String, String>,
    secrets: Vec<&'static str>,
    /// What to print for settings that contain secrets but are not secret as a whole.
    shown: HashMap<&'static str, String>,
    mistakes: Vec<String>,
}

impl Reader {
    pub(super) fn new(sources: Sources) -> Result<Self, Mistakes> {
        let known = flat(&parse(config::Config::builder())?);
        let mut mistakes = Vec::new();
        let mut variables = HashMap::new();
        let (mut environment, mut foreign) = (HashMap::new(), HashMap::new());
        for (variable, value) in sources.environment {
            let Some(rest) = variable.strip_prefix(&format!("{PREFIX}_")) else {
                // OpenTelemetry says: an empty variable counts as unset.
                if !value.is_empty() {
                    foreign.insert(variable, value);
                }
                continue;
            };
            let key = rest.replace("__", ".").to_lowercase();
            if known.contains_key(&key) {
                variables.insert(key, variable.clone());
                environment.insert(variable, value);
            } else if !is_kubernetes_link(rest) && !bugs::VARIABLES.contains(&&*variable) {
                mistakes.push(format!("{variable} is not a setting"));
            }
        }
        let mut builder = config::Config::builder();
        if let Some(path) = sources.file {
            builder = builder.add_source(File::from(path).format(FileFormat::Toml));
        }
        let environment = Environment::with_prefix(PREFIX)
            .prefix_separator("_")
            .separator("__")
            .source(Some(environment));
        builder = builder.add_source(environment);
        for (key, value) in sources.flags {
            builder = builder
                .set_override(&key, value)
                .map_err(|error| Mistakes(vec![format!("--set {key}: {error}")]))?;
        }
        let settings = parse(builder)?;
        let unknown = flat(&settings)
            .into_keys()
            .filter(|key| !known.contains_key(key));
        mistakes.extend(unknown.map(|key| format!("{key} is not a setting")));
        mistakes.sort();
        Ok(Self {
            settings,
            variables,
            foreign,
            secrets: Vec::new(),
            shown: HashMap::new(),
            mistakes,
        })
    }

    /// Records a mistake in a setting.
    pub(super) fn mistake(&mut self, key: &str, what: &str) {
        let value = if self.secrets.contains(&key) {
            "…".to_owned()
        } else {
            self.raw(key)
        };
        let from = self
            .variables
            .get(key)
            .map(|variable| format!(" (from {variable})"))
            .unwrap_or_default();
        self.mistakes
            .push(format!("{key} = {value:?}{from} {what}"));
    }

    /// An environment variable without our prefix.
    pub(super) fn foreign(&self, variable: &str) -> Option<&str> {
        self.foreign.get(variable).map(String::as_str)
    }

    /// Records a mistake in such a variable.
    pub(super) fn foreign_mistake(&mut self, variable: &str, what: &str) {
        let value = self.foreign(variable).unwrap_or_default();
        self.mistakes.push(format!("{variable} = {value:?} {what}"));
    }

    /// Reads a text.
    pub(super) fn text(&mut self, key: &'static str) -> String {
        match self.settings.get_string(key) {
            Ok(text) => text,
            Err(error) => {
                self.mistake(key, &format!("must be a text: {error}"));
                String::new()
            }
        }
    }

    /// Reads a text that is never printed.
    pub(super) fn secret(&mut self, key: &'static str) -> String {
        self.secrets.push(key);
        self.text(key)
    }

    /// Reads a value that `what` describes. If it cannot be parsed, records a mistake and returns
    /// the default.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &'static str, what: &str) -> T {
        self.converted(key, what, |text| text.parse().ok())
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Duration {
        self.converted(key, "a duration such as 30s or 500ms", |text| {
            humantime::parse_duration(text).ok()
        })
    }

    pub(super) fn one_of<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let find = |text: &str| {
            choices
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, choice)| *choice)
        };
        self.converted(key, &format!("one of {}", words.join(", ")), find)
    }

    /// Reads a list: TOML, or values separated by commas.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        if let Ok(values) = self.settings.get_array(key) {
            return values
                .into_iter()
                .filter_map(|value| value.into_string().ok())
                .collect();
        }
        let text = self.text(key);
        if text.starts_with('[') {
            // A TOML list, from the environment or a flag.
            let toml = File::from_str(&format!("list = {text}"), FileFormat::Toml);
            let list = config::Config::builder().add_source(toml).build();
            if let Ok(values) = list.and_then(|list| list.get_array("list")) {
                return values
                    .into_iter()
                    .filter_map(|value| value.into_string().ok())
                    .collect();
            }
            self.mistake(
                key,
                "is not a list: write [\"a\", \"b\"], or values separated by commas",
            );
            return Vec::new();
        }
        text.split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Reads a list of texts and tables: TOML, JSON, or texts separated by commas. It may contain
    /// secrets.
    pub(super) fn entries(&mut self, key: &'static str) -> Vec<Value> {
        self.secrets.push(key);
        if let Ok(values) = self.settings.get_array(key) {
            return values;
        }
        let text = self.text(key);
        if !text.starts_with('[') {
            let words = text.split(',').map(str::trim);
            return words
                .filter(|word| !word.is_empty())
                .map(Value::from)
                .collect();
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
                "is not a list: write JSON, TOML, or values separated by commas",
            );
            Vec::new()
        })
    }

    /// Sets what to print for a setting that contains secrets.
    pub(super) fn show(&mut self, key: &'static str, shown: String) {
        self.shown.insert(key, shown);
    }

    /// The effective settings with secrets hidden, or all mistakes.
    pub(super) fn finish(self) -> Result<String, Mistakes> {
        if !self.mistakes.is_empty() {
            return Err(Mistakes(self.mistakes));
        }
        let settings = flat(&self.settings).into_iter();
        let mut lines: Vec<String> = settings
            .map(|(key, value)| {
                let hidden = self.secrets.contains(&key.as_str()) && value != "\"\"";
                let shown = match self.shown.get(key.as_str()) {
                    Some(shown) => shown,
                    None if hidden => "\"(hidden)\"",
                    None => &value,
                };
                format!("{key} = {shown}")
            })
            .collect();
        lines.sort();
        Ok(lines.join("\n") + "\n")
    }

    fn converted<T>(
        &mut self,
        key: &'static str,
        what: &str,
        convert: impl Fn(&str) -> Option<T>,
    ) -> T {
        if let Some(value) = convert(&self.raw(key)) {
            return value;
        }
        self.mistake(key, &format!("is not {what}"));
        let default = parse(config::Config::builder())
            .ok()
            .and_then(|defaults| defaults.get_string(key).ok());
        // A test reads every default.
        default
            .as_deref()
            .and_then(convert)
            .unwrap_or_else(|| unreachable!("the default of {key} cannot be read"))
    }

    fn raw(&self, key: &str) -> String {
        self.settings.get_string(key).unwrap_or_default()
    }
}

/// Adds the defaults below all other sources.
fn parse(
    builder: config::ConfigBuilder<config::builder::DefaultState>,
) -> Result<config::Config, Mistakes> {
    let defaults = config::Config::builder()
        .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
        .build();
    let wrong = |error: config::ConfigError| Mistakes(vec![error.to_string()]);
    let layered = builder.build().map_err(wrong)?;
    let both = config::Config::builder()
        .add_source(defaults.map_err(wrong)?)
        .add_source(layered);
    both.build().map_err(wrong)
}

/// All settings by dotted name, as TOML values.
fn flat(settings: &config::Config) -> HashMap<String, String> {
    fn visit(prefix: &str, value: &Value, into: &mut HashMap<String, String>) {
        match &value.kind {
            ValueKind::Table(table) => {
                for (key, value) in table {
                    let key = if prefix.is_empty() {
                        key.clone()
                    } else {
                        format!("{prefix}.{key}")
                    };
                    visit(&key, value, into);
                }
            }
            ValueKind::Array(values) => {
                let words: Vec<String> = values
                    .iter()
                    .map(|value| format!("{:?}", value.to_string()))
                    .collect();
                into.insert(prefix.to_owned(), format!("[{}]", words.join(", ")));
            }
            ValueKind::String(text) => drop(into.insert(prefix.to_owned(), format!("{text:?}"))),
            other => drop(into.insert(prefix.to_owned(), other.to_string())),
        }
    }
    let mut all = HashMap::new();
    visit("", &settings.cache, &mut all);
    all
}

/// Whether the variable comes from Kubernetes: for a Service named switchboard, every container
/// gets variables such as `SWITCHBOARD_SERVICE_HOST`.
fn is_kubernetes_link(rest: &str) -> bool {
    rest.split('_').any(|word| word == "PORT")
        || rest.starts_with("SERVICE_")
        || rest.contains("_SERVICE_")
}
