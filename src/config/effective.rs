//! What is reported of a configuration: the settings in effect, and all mistakes.

use std::fmt;

use super::layers::toml;
use super::reader::{Reader, is_secret};

/// Longer lines do not move the column of origins.
const USUAL_LENGTH: usize = 60;

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
            "src/config/default.toml explains every setting; `switchboard config check` prints those in effect."
        )
    }
}

impl Reader {
    /// The effective settings, each with where it comes from, with secrets hidden; and all mistakes.
    pub(super) fn finish(self) -> (String, Result<(), Mistakes>) {
        let lines = self.layers.settings.iter().map(|(key, setting)| {
            let key = key.as_str();
            let value = toml(&setting.value);
            let hidden = self.secrets.contains(&key) && value != "\"\"";
            let shown = match self.shown.get(key) {
                Some(shown) => shown,
                None if hidden => "\"(hidden)\"",
                None => &value,
            };
            (format!("{key} = {shown}"), setting.origin.to_string())
        });
        let exported = self.layers.foreign.iter();
        let exported = exported.filter(|(variable, _)| variable.starts_with("OTEL_"));
        let exported = exported.map(|(variable, value)| {
            let shown = if is_secret(variable, value) {
                "(hidden)"
            } else {
                value
            };
            (format!("# {variable} = {shown:?}"), variable.clone())
        });
        let all: Vec<_> = lines.chain(exported).collect();
        let of_usual_length = all.iter().map(|(line, _)| line.chars().count());
        let width = of_usual_length
            .filter(|length| *length <= USUAL_LENGTH)
            .max()
            .unwrap_or(0);
        let all = all
            .iter()
            .map(|(line, from)| format!("{line:width$}  # {from}\n"));
        let mut mistakes = self.layers.mistakes;
        mistakes.sort();
        let result = if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Mistakes(mistakes))
        };
        (all.collect(), result)
    }
}
