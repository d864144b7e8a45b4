//! Reads those standard variables of OpenTelemetry that the SDK does not read itself.

use super::reader::Reader;
use crate::telemetry::{LogFormat, Protocol, Sampling, Settings, UserNames};

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

/// A signal that can be exported.
#[derive(Clone, Copy)]
enum Kind {
    Traces,
    Metrics,
}

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
        traces: export(reader, Kind::Traces),
        metrics: export(reader, Kind::Metrics),
        sampling: sampling(reader),
    }
}

/// The protocol for exporting this signal; `None` unless an endpoint is set or the exporter is
/// named.
fn export(reader: &mut Reader, kind: Kind) -> Option<Protocol> {
    let (exporter, endpoint, protocol) = match kind {
        Kind::Traces => (
            "OTEL_TRACES_EXPORTER",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        ),
        Kind::Metrics => (
            "OTEL_METRICS_EXPORTER",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        ),
    };
    let endpoint = [endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT"]
        .into_iter()
        .find(|variable| reader.foreign(variable).is_some());
    let disabled = reader
        .foreign("OTEL_SDK_DISABLED")
        .is_some_and(|word| word.eq_ignore_ascii_case("true"));
    let is_on = match reader.foreign(exporter) {
        None => endpoint.is_some(),
        Some("otlp") => true,
        Some("none") => false,
        // The Prometheus endpoint is always on.
        Some("prometheus") if matches!(kind, Kind::Metrics) => false,
        Some(_) => {
            reader.foreign_mistake(exporter, "is not supported: use otlp or none");
            false
        }
    };
    if !is_on || disabled {
        return None;
    }
    let protocol = [protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"]
        .into_iter()
        .find(|variable| reader.foreign(variable).is_some());
    let chosen = match protocol.and_then(|variable| reader.foreign(variable)) {
        Some("grpc") => Protocol::Grpc,
        None | Some("http/protobuf") => Protocol::Http,
        Some(_) => {
            let variable = protocol.unwrap_or_default();
            reader.foreign_mistake(variable, "is not supported: use grpc or http/protobuf");
            return None;
        }
    };
    let is_secure = |variable| {
        let endpoint = reader.foreign(variable);
        endpoint.is_some_and(|endpoint| endpoint.starts_with("https:"))
    };
    if chosen == Protocol::Http
        && let Some(variable) = endpoint.filter(|variable| is_secure(variable))
    {
        reader.foreign_mistake(
            variable,
            "is an https URL, which this build supports with OTEL_EXPORTER_OTLP_PROTOCOL=grpc only: \
             set that, or use http to a collector on this host",
        );
    }
    Some(chosen)
}

fn sampling(reader: &mut Reader) -> Sampling {
    let (parent_decides, word) = match reader.foreign(SAMPLER) {
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
