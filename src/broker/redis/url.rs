//! The URL of a Redis, as operators write it. An error goes on after the setting's name, says what to write instead,
//! and never has the password.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use redis::IntoConnectionInfo as _;

use super::Url;

/// How characters with a meaning in URLs are written in a password.
const ENCODED: [(char, &str); 3] = [('#', "%23"), ('/', "%2F"), ('?', "%3F")];

impl Url {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("is not a URL: write redis://HOST:6379, or rediss://HOST:6379 for TLS")?;
        match scheme.to_ascii_lowercase().as_str() {
            "redis" | "rediss" | "valkey" | "valkeys" => check(rest)?,
            "unix" | "redis+unix" | "valkey+unix" => {}
            other if other.contains("sentinel") || other.contains("cluster") => {
                return Err(
                    "sentinel and cluster are not supported yet: use the redis:// URL of one server"
                        .to_owned(),
                );
            }
            _ => return Err("must begin with redis://, or rediss:// for TLS".to_owned()),
        }
        let url = Self::new(text);
        // The library's errors do not have the URL.
        url.expose().into_connection_info().map_err(|error| {
            format!("is not a Redis URL such as redis://localhost:6379: {error}")
        })?;
        Ok(url)
    }

    /// The same with this user and password, as they are.
    pub fn with_login(self, login: Option<(&str, &str)>) -> Result<Self, String> {
        let Some((username, password)) = login else {
            return Ok(self);
        };
        match self.expose().split_once("://") {
            Some((scheme, rest)) if !rest.contains('@') && !scheme.contains("unix") => {
                let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
                let (username, password) = (encoded(username), encoded(password));
                Ok(Self::new(&format!(
                    "{scheme}://{username}:{password}@{rest}"
                )))
            }
            _ => Err(
                "has a user and a password, or cannot have them, and redis.password is set"
                    .to_owned(),
            ),
        }
    }

    /// Whether it asks for TLS.
    pub fn is_tls(&self) -> bool {
        let scheme = self.expose().split_once("://").unwrap_or_default().0;
        ["rediss", "valkeys"].contains(&scheme.to_ascii_lowercase().as_str())
    }
}

/// Checks `[user:password@]host[:port][/db]`.
fn check(rest: &str) -> Result<(), String> {
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    if let Some(user) = user {
        check_user(user)?;
    }
    let (address, path) = place.split_at(place.find(['/', '?', '#']).unwrap_or(place.len()));
    if address.contains(',') {
        return Err(
            "has more than one address: sentinel and cluster are not supported yet, use the URL of one server"
                .to_owned(),
        );
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or_default(),
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    // What comes after a colon can be a password without its @.
    if host.is_empty() {
        return Err("has no host: write redis://HOST:6379".to_owned());
    }
    if !port.is_empty() && !port.parse().is_ok_and(|port: u16| port > 0) {
        return Err(
            "has a port that is not a number from 1 to 65535; a password is written before the host: \
             redis://:PASSWORD@HOST:6379"
                .to_owned(),
        );
    }
    let database = path.split(['?', '#']).next().unwrap_or_default();
    let database = database.trim_matches('/');
    if !database.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has a path that is not the number of a database, such as /0".to_owned());
    }
    Ok(())
}

fn check_user(user: &str) -> Result<(), String> {
    let unencoded: Vec<String> = ENCODED
        .iter()
        .filter(|(character, _)| user.contains(*character))
        .map(|(character, code)| format!("{character} as {code}"))
        .collect();
    if !unencoded.is_empty() {
        return Err(format!(
            "has characters before the @ that mean something else in a URL: percent-encode the password: write {}",
            unencoded.join(", ")
        ));
    }
    if user
        .split_once('@')
        .is_some_and(|(_, after)| after.contains(','))
    {
        return Err(
            "has more than one address (sentinel and cluster are not supported yet), or a password with an @ \
             that is not percent-encoded: write @ as %40"
                .to_owned(),
        );
    }
    if !user.contains(':') && !user.is_empty() && user != "default" {
        return Err(
            "has a user name and no password, and would log nobody in: write redis://:PASSWORD@HOST:6379, \
             or redis://USER:PASSWORD@HOST:6379"
                .to_owned(),
        );
    }
    Ok(())
}
