//! Parses the text of a setting. An error text continues a sentence that begins with the setting's name, and says what
//! to write instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;

/// No duration is longer: sums of them must not overflow.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Reads an address to listen on: `0.0.0.0:9090`, `[::]:9090`, `*:9090`, `:9090`, `9090` or `localhost:9090`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    const WRONG: &str = "is not an address such as 0.0.0.0:9090";
    if let Some(address) = known_address(text) {
        return Ok(address);
    }
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.trim_end_matches('/');
    if let Some(address) = known_address(bare) {
        return Err(format!("{WRONG}: write {address}"));
    }
    Err(match bare.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V6(ip)) => {
            format!("{WRONG}: write the port too, and IPv6 in brackets, such as [{ip}]:9090")
        }
        Ok(ip) => format!("{WRONG}: write {ip}:9090"),
        Err(_) => {
            format!("{WRONG}: write an IP address of this machine and a port, or *:9090 for all")
        }
    })
}

fn known_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let ip: IpAddr = match host.to_ascii_lowercase().as_str() {
        "" | "*" => Ipv6Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_number)?;
    Some(SocketAddr::new(ip, port))
}

/// Reads a truth value.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("is not true or false (or yes or no, on or off, 1 or 0)".to_owned()),
    }
}

/// Reads a duration with a unit. Only 0 needs none.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "is not a duration such as 30s or 500ms";
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        if text.bytes().all(|byte| byte == b'0') {
            return Ok(Duration::ZERO);
        }
        return Err(format!(
            "{WRONG}: it has no unit: write {text}s or {text}ms"
        ));
    }
    let lower = text.to_ascii_lowercase();
    let duration = match humantime::parse_duration(text) {
        // For humantime M is a month, which nobody means here.
        Ok(_) if text.contains('M') => {
            return Err(format!("{WRONG}: write {lower} for minutes"));
        }
        Ok(duration) => duration,
        Err(_) if humantime::parse_duration(&lower).is_ok() => {
            return Err(format!("{WRONG}: write {lower}"));
        }
        Err(_) => return Err(WRONG.to_owned()),
    };
    if duration > LONGEST {
        return Err("is longer than a year".to_owned());
    }
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("is not in whole milliseconds".to_owned());
    }
    Ok(duration)
}

/// Reads a number of bytes, with or without a unit.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let size = match number(text) {
        Some(bytes) => Some(bytes),
        None => text.parse::<ByteSize>().ok().map(|ByteSize(bytes)| bytes),
    };
    size.and_then(|bytes: u64| usize::try_from(bytes).ok())
        .ok_or_else(|| "is not a size such as 65536, 64KiB or 1MB".to_owned())
}

/// Reads a number; as in TOML, underscores may separate its digits.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.replace('_', "").parse().ok()
}

/// Reads a filter for log lines. `EnvFilter` takes a word that is no level for the name of a module, and then logs
/// nothing else.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let mut directives = Vec::new();
    for directive in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let lower = directive.to_ascii_lowercase();
        let level = match lower.as_str() {
            "warning" => "warn",
            "err" => "error",
            "none" => "off",
            _ => &lower,
        };
        if LEVELS.contains(&level) {
            directives.push(level.to_owned());
        } else if directive.contains(['=', '[']) || directive.contains("::") {
            directives.push(directive.to_owned());
        } else {
            return Err(format!(
                "has {directive:?}, which is not a level: use error, warn, info, debug or trace, \
                 and write modules as {directive}=debug"
            ));
        }
    }
    let filter = directives.join(",");
    match tracing_subscriber::EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(format!(
            "is not a log filter such as info or switchboard=debug: {error}"
        )),
    }
}
