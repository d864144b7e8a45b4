//! Reads those standard variables of OpenTelemetry that the SDK does not read itself.

use std::time::Duration;

use super::otel_variables;
use super::reader::Reader;
use crate::telemetry::{Export, LogFormat, Protocol, Sampling, Settings, SpanLimits, UserNames};

/// Environment variables that deployments usually fill from Kubernetes' downward API, with the
/// resource attributes of the semantic conventions.
const KUBERNETES: [(&str, &str); 4] = [
    ("POD_NAME", "k8s.pod.name"),
    ("POD_UID", "k8s.pod.uid"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("NODE_NAME", "k8s.node.name"),
];

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// A signal that can be exported: its part of variables, its exporter, and the time limit of its reader or processor.
struct Signal {
    name: &'static str,
    exporter: &'static str,
    timeout: &'static str,
}

const TRACES: Signal = Signal {
    name: "TRACES_",
    exporter: "OTEL_TRACES_EXPORTER",
    timeout: "OTEL_BSP_EXPORT_TIMEOUT",
};
const METRICS: Signal = Signal {
    name: "METRICS_",
    exporter: "OTEL_METRICS_EXPORTER",
    timeout: "OTEL_METRIC_EXPORT_TIMEOUT",
};

pub(super) fn read(
    reader: &mut Reader,
    log_format: LogFormat,
    log_level: String,
    system: &'static str,
) -> Settings {
    let user_names = reader.one_of(
        "telemetry.user_names",
        &[
            ("plain", UserNames::Plain),
            ("hashed", UserNames::Hashed),
            ("omit", UserNames::Omit),
        ],
    );
    let resource = KUBERNETES.iter().filter_map(|(variable, attribute)| {
        let value = reader.foreign(variable)?;
        Some(((*attribute).to_owned(), value.to_owned()))
    });
    Settings {
        log_format,
        log_level,
        user_names,
        system,
        resource: resource.collect(),
        service_name: reader.foreign("OTEL_SERVICE_NAME").map(str::to_owned),
        ignored: otel_variables::check(reader),
        traces: export(reader, &TRACES),
        metrics: export(reader, &METRICS),
        span_limits: span_limits(reader),
        sampling: sampling(reader),
    }
}

/// The standard's bound of the queue is 2,048. This one holds the spans of some 200 calls while the collector is away.
fn span_limits(reader: &Reader) -> SpanLimits {
    let queue = number(reader, "OTEL_BSP_MAX_QUEUE_SIZE", 8192).max(1);
    let batch = number(reader, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512);
    let delay = number(reader, "OTEL_BSP_SCHEDULE_DELAY", 5000);
    SpanLimits {
        queue,
        batch: batch.clamp(1, queue),
        delay: Duration::from_millis(delay as u64),
    }
}

/// A number that has been checked.
fn number(reader: &Reader, variable: &str, default: usize) -> usize {
    let value = reader
        .foreign(variable)
        .and_then(|value| value.parse().ok());
    value.unwrap_or(default)
}

/// A word of the specification, which may be written in upper case.
fn word(reader: &Reader, variable: &str) -> Option<String> {
    reader.foreign(variable).map(str::to_ascii_lowercase)
}

/// The variable of an exporter that is set: the signal's own, or the one for all signals.
fn variable(reader: &Reader, signal: &Signal, name: &str) -> Option<String> {
    [signal.name, ""]
        .into_iter()
        .map(|signal| format!("OTEL_EXPORTER_OTLP_{signal}{name}"))
        .find(|variable| reader.foreign(variable).is_some())
}

/// How to export this signal; `None` unless an endpoint is set or the exporter is named.
fn export(reader: &mut Reader, signal: &Signal) -> Option<Export> {
    let endpoint = variable(reader, signal, "ENDPOINT");
    let disabled = word(reader, "OTEL_SDK_DISABLED").is_some_and(|word| word == "true");
    let is_on = match word(reader, signal.exporter).as_deref() {
        None => endpoint.is_some(),
        Some("otlp") => true,
        Some("none") => false,
        // The Prometheus endpoint is always on.
        Some("prometheus") if signal.name == METRICS.name => false,
        Some(_) => {
            reader.foreign_mistake(signal.exporter, "is not supported: use otlp or none");
            false
        }
    };
    if !is_on || disabled {
        return None;
    }
    let protocol = variable(reader, signal, "PROTOCOL").unwrap_or_default();
    let protocol = match word(reader, &protocol).as_deref() {
        Some("grpc") => Protocol::Grpc,
        None | Some("http/protobuf") => Protocol::Http,
        Some(_) => {
            reader.foreign_mistake(&protocol, "is not supported: use grpc or http/protobuf");
            return None;
        }
    };
    let timeout = variable(reader, signal, "TIMEOUT").unwrap_or_default();
    let timeout = number(reader, &timeout, 10_000).min(number(reader, signal.timeout, 30_000));
    let certificate = file(reader, signal, "CERTIFICATE");
    let client = file(reader, signal, "CLIENT_CERTIFICATE");
    let client_key = file(reader, signal, "CLIENT_KEY");
    if client.is_some() != client_key.is_some() {
        let name = ["CLIENT_CERTIFICATE", "CLIENT_KEY"];
        let set = name.iter().find_map(|name| variable(reader, signal, name));
        reader.foreign_mistake(
            &set.unwrap_or_default(),
            "is set without the other: set both CLIENT_CERTIFICATE and CLIENT_KEY, or neither",
        );
    }
    Some(Export {
        protocol,
        endpoint: grpc_endpoint(reader, signal),
        timeout: Duration::from_millis(timeout as u64),
        certificate,
        client: client.zip(client_key),
    })
}

/// Where the collector takes gRPC: what is set, with the scheme that the specification gives to an address without one.
fn grpc_endpoint(reader: &Reader, signal: &Signal) -> String {
    let value = |name| {
        let variable = variable(reader, signal, name)?;
        reader.foreign(&variable).map(str::to_owned)
    };
    let Some(endpoint) = value("ENDPOINT") else {
        return "http://localhost:4317".to_owned();
    };
    if endpoint.contains("://") {
        return endpoint;
    }
    let is_insecure = value("INSECURE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let scheme = if is_insecure { "http" } else { "https" };
    format!("{scheme}://{endpoint}")
}

/// The contents of the file that a variable names.
fn file(reader: &mut Reader, signal: &Signal, name: &str) -> Option<Vec<u8>> {
    let variable = variable(reader, signal, name)?;
    let path = reader.foreign(&variable)?;
    match std::fs::read(path) {
        Ok(text) => Some(text),
        Err(error) => {
            reader.foreign_mistake(&variable, &format!("cannot be read: {error}"));
            None
        }
    }
}

fn sampling(reader: &mut Reader) -> Sampling {
    let sampler = word(reader, SAMPLER);
    let (parent_decides, word) = match sampler.as_deref() {
        None => (true, "always_on"),
        Some(word) => word
            .strip_prefix("parentbased_")
            .map_or((false, word), |word| (true, word)),
    };
    let ratio = match word {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => match reader.foreign(SAMPLER_ARG).map(str::parse) {
            None => Some(1.0),
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => Some(ratio),
            Some(_) => {
                reader.foreign_mistake(SAMPLER_ARG, "is not a number from 0 to 1");
                None
            }
        },
        _ => {
            reader.foreign_mistake(
                SAMPLER,
                "is not supported: use always_on, always_off or traceidratio, \
                 each with or without the prefix parentbased_",
            );
            None
        }
    };
    Sampling {
        ratio: ratio.unwrap_or(1.0),
        parent_decides,
    }
}
