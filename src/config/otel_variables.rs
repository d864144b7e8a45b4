//! The environment variables of OpenTelemetry's specification: which are obeyed, and what may be in them.

use url::Url;

use super::reader::Reader;

/// What may be in a variable.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Read elsewhere, or free text.
    Any,
    /// A number from 1.
    Number,
    Words(&'static [&'static str]),
    /// `key=value` pairs separated by commas.
    Pairs,
    Endpoint,
}

const TRUTH: Kind = Kind::Words(&["true", "false"]);

/// The variables that this node or its SDK obeys.
const OBEYED: [(&str, Kind); 18] = [
    ("OTEL_SDK_DISABLED", TRUTH),
    ("OTEL_SERVICE_NAME", Kind::Any),
    ("OTEL_RESOURCE_ATTRIBUTES", Kind::Pairs),
    ("OTEL_TRACES_EXPORTER", Kind::Any),
    ("OTEL_METRICS_EXPORTER", Kind::Any),
    ("OTEL_TRACES_SAMPLER", Kind::Any),
    ("OTEL_TRACES_SAMPLER_ARG", Kind::Any),
    ("OTEL_BSP_SCHEDULE_DELAY", Kind::Number),
    ("OTEL_BSP_EXPORT_TIMEOUT", Kind::Number),
    ("OTEL_BSP_MAX_QUEUE_SIZE", Kind::Number),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", Kind::Number),
    ("OTEL_METRIC_EXPORT_INTERVAL", Kind::Number),
    ("OTEL_METRIC_EXPORT_TIMEOUT", Kind::Number),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", Kind::Number),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", Kind::Number),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", Kind::Number),
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        Kind::Words(&["cumulative", "delta", "lowmemory"]),
    ),
    ("OTEL_METRICS_EXEMPLAR_FILTER", Kind::Words(&["always_off"])),
];

/// What follows `OTEL_EXPORTER_OTLP_`, `OTEL_EXPORTER_OTLP_TRACES_` and `OTEL_EXPORTER_OTLP_METRICS_`.
const EXPORTER: [(&str, Kind); 9] = [
    ("ENDPOINT", Kind::Endpoint),
    ("PROTOCOL", Kind::Any),
    ("HEADERS", Kind::Pairs),
    ("TIMEOUT", Kind::Number),
    ("COMPRESSION", Kind::Words(&["gzip", "none"])),
    ("INSECURE", TRUTH),
    ("CERTIFICATE", Kind::Any),
    ("CLIENT_CERTIFICATE", Kind::Any),
    ("CLIENT_KEY", Kind::Any),
];

/// What to use instead of variables that are not obeyed, or what is done anyway.
const INSTEAD: [(&str, &str); 4] = [
    (
        "OTEL_PROPAGATORS",
        "an offer's traceparent (tracecontext) is all that is propagated",
    ),
    (
        "OTEL_LOGS_EXPORTER",
        "log lines go to standard error: collect them from there",
    ),
    ("OTEL_LOG_LEVEL", "use log.level"),
    (
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "metrics are at /metrics of admin.listen",
    ),
];

fn kind(variable: &str) -> Option<Kind> {
    let of = |list: &[(&str, Kind)], name: &str| {
        let found = list.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind)
    };
    of(&OBEYED, variable).or_else(|| {
        let rest = variable.strip_prefix("OTEL_EXPORTER_OTLP_")?;
        let signals = ["TRACES_", "METRICS_", ""].into_iter();
        let mut names = signals.filter_map(|signal| rest.strip_prefix(signal));
        names.find_map(|name| of(&EXPORTER, name))
    })
}

/// Checks the variables that are set. Returns what is to be said of those that are not obeyed.
pub(super) fn check(reader: &mut Reader) -> Vec<String> {
    let mut ignored = Vec::new();
    for variable in reader.foreign_names("OTEL_") {
        let value = reader.foreign(&variable).unwrap_or_default().to_owned();
        let Some(kind) = kind(&variable) else {
            ignored.extend(what_is_ignored(&variable, &value));
            continue;
        };
        if let Err(what) = check_value(kind, &value) {
            reader.foreign_mistake(&variable, &what);
        }
    }
    ignored
}

fn what_is_ignored(variable: &str, value: &str) -> Option<String> {
    let words: Vec<&str> = value.split(',').map(str::trim).collect();
    let is_default = match variable {
        "OTEL_PROPAGATORS" => {
            let is_known = |word: &&str| ["tracecontext", "baggage"].contains(word);
            words.contains(&"tracecontext") && words.iter().all(is_known)
        }
        "OTEL_LOGS_EXPORTER" => value == "none",
        _ => false,
    };
    if is_default {
        return None;
    }
    let instead = INSTEAD.iter().find(|(known, _)| *known == variable);
    let known = OBEYED.iter().map(|(known, _)| (*known).to_owned());
    let of_exporter = ["", "TRACES_", "METRICS_"].into_iter().flat_map(|signal| {
        let names = EXPORTER.iter();
        names.map(move |(name, _)| format!("OTEL_EXPORTER_OTLP_{signal}{name}"))
    });
    let mut near = known
        .chain(of_exporter)
        .filter(|known| strsim::osa_distance(known, variable) <= 1);
    let hint = match (instead, near.next()) {
        (Some((_, instead)), _) => format!(": {instead}"),
        (None, Some(near)) => format!(": did you mean {near}?"),
        (None, None) => String::new(),
    };
    Some(format!("{variable}{hint}"))
}

fn check_value(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::Any => Ok(()),
        Kind::Number if value.parse().is_ok_and(|number: u32| number > 0) => Ok(()),
        Kind::Number => Err("is not a number from 1; times are in milliseconds".to_owned()),
        Kind::Words(words) if words.contains(&&*value.to_ascii_lowercase()) => Ok(()),
        Kind::Words(words) => Err(format!("is not supported: use {}", words.join(" or "))),
        Kind::Pairs => {
            let mut pairs = value
                .split(',')
                .map(str::trim)
                .filter(|pair| !pair.is_empty());
            let is_pair = |pair: &str| {
                pair.split_once('=')
                    .is_some_and(|(key, _)| !key.trim().is_empty())
            };
            if pairs.all(is_pair) {
                Ok(())
            } else {
                Err("is not a list key=value,key=value".to_owned())
            }
        }
        Kind::Endpoint => check_endpoint(value),
    }
}

fn check_endpoint(value: &str) -> Result<(), String> {
    const WRONG: &str = "is not a URL such as http://localhost:4318";
    let url = Url::parse(value).ok().filter(|_| value.contains("://"));
    match url {
        Some(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(()),
        Some(_) => Err(format!("{WRONG}: it must begin with http:// or https://")),
        None if value.contains("://") => Err(format!("{WRONG}: it names no host")),
        None if Url::parse(&format!("http://{value}")).is_ok() => {
            let place = value.rsplit_once('@').map_or(value, |(_, place)| place);
            Err(format!("{WRONG}: write http://{place}, or https://{place}"))
        }
        None => Err(WRONG.to_owned()),
    }
}
