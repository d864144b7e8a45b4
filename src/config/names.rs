//! Names of settings: which environment variable is which, and which setting was meant by a name that is none.

/// The prefix of our environment variables.
pub(super) const PREFIX: &str = "SWITCHBOARD_";

/// What other servers call a setting, and the name that it has here.
const ELSEWHERE: [(&str, &str); 11] = [
    ("addr", "listen"),
    ("address", "listen"),
    ("bind", "listen"),
    ("host", "listen"),
    ("port", "listen"),
    ("cors", "limits.origins"),
    ("allowed.origins", "limits.origins"),
    ("redis", "redis.url"),
    ("redis.addr", "redis.url"),
    ("redis.host", "redis.url"),
    ("turn.secret", "ice.turn_secret"),
];

/// The key of the setting in this environment variable, without the prefix.
pub(super) fn key_of(rest: &str) -> String {
    rest.replace("__", ".").to_lowercase()
}

/// The environment variable of a setting.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// The setting that somebody who wrote `name` probably meant.
pub(super) fn nearest<'a>(
    known: impl Iterator<Item = &'a str> + Clone,
    name: &str,
) -> Option<&'a str> {
    let name = plain(name);
    let name = name.strip_prefix("switchboard.").unwrap_or(&name);
    let exact = |name: &str| known.clone().find(|key| plain(key) == name);
    if let Some(key) = exact(name) {
        return Some(key);
    }
    if let Some((_, key)) = ELSEWHERE.iter().find(|(word, _)| *word == name) {
        return exact(&plain(key));
    }
    let near = known
        .clone()
        .map(|key| (strsim::osa_distance(&plain(key), name), key));
    // One slip, and one more for every six letters.
    let near = near.filter(|(slips, _)| *slips <= 1 + name.len() / 6);
    if let Some((_, key)) = near.min() {
        return Some(key);
    }
    // In another section, or in none.
    let word = |key: &str| plain(key.rsplit('.').next().unwrap_or(key));
    let written = name.split_once('.').map_or(name, |(_, rest)| rest);
    let mut same = known.filter(|key| word(key) == written || word(key) == name);
    same.next().filter(|_| same.next().is_none())
}

/// A name without the differences between keys, variables and flags.
fn plain(name: &str) -> String {
    let words = name.split(['.', '_', '-', ' ']);
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(".").to_lowercase()
}

/// What follows the prefix, if the prefix is `SWITCHBOARD_` with a typing error.
pub(super) fn misspelt_prefix(variable: &str) -> Option<&str> {
    let (prefix, rest) = variable.split_once('_')?;
    let prefix = prefix.to_uppercase();
    let is_near = strsim::osa_distance(&prefix, PREFIX.trim_end_matches('_')) <= 2;
    is_near.then_some(rest)
}

/// Whether the variable comes from Kubernetes: for a Service named switchboard, every container gets variables such as
/// `SWITCHBOARD_SERVICE_HOST` and `SWITCHBOARD_PORT=tcp://10.0.0.1:9090`.
pub(super) fn is_kubernetes_link(rest: &str, value: &str) -> bool {
    let is_service = rest.starts_with("SERVICE_") || rest.contains("_SERVICE_");
    let mut words = rest.split('_');
    let mut of_port = words.by_ref().skip_while(|word| *word != "PORT").skip(1);
    let is_port = match of_port.next() {
        // SWITCHBOARD_PORT=9090 is of somebody who wants another port.
        None => rest.split('_').any(|word| word == "PORT") && value.contains("://"),
        Some(number) => number.bytes().all(|byte| byte.is_ascii_digit()),
    };
    is_service || is_port
}
