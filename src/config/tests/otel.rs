//! The standard variables of OpenTelemetry.

use super::*;

#[test]
fn traces_are_exported_if_an_endpoint_or_exporter_is_set() {
    use crate::telemetry::Protocol;
    let traces = |environment: &[(&str, &str)]| {
        let telemetry = load(environment).unwrap().0.telemetry;
        (telemetry.traces, telemetry.metrics)
    };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let (http, by_grpc) = (Some(Protocol::Http), Some(Protocol::Grpc));
    assert_eq!(traces(&[]), (None, None));
    assert_eq!(traces(&[grpc]), (None, None));
    assert_eq!(traces(&[endpoint]), (http, http));
    assert_eq!(traces(&[endpoint, grpc]), (by_grpc, by_grpc));
    assert_eq!(traces(&[("OTEL_TRACES_EXPORTER", "otlp")]), (http, None));
    assert_eq!(
        traces(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]),
        (http, None)
    );
    assert_eq!(
        traces(&[endpoint, ("OTEL_SDK_DISABLED", "true")]),
        (None, None)
    );
    let (config, _) = load(&[
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ("POD_NAME", "switchboard-0"),
    ])
    .unwrap();
    let sampling = config.telemetry.sampling;
    assert!(sampling.parent_decides && (sampling.ratio - 0.01).abs() < 1e-9);
    assert_eq!(
        config.telemetry.resource,
        [("k8s.pod.name".to_owned(), "switchboard-0".to_owned())]
    );
    let mistakes = load(&[
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("SWITCHBOARD_TELEMETRY__USER_NAMES", "shown"),
    ])
    .unwrap_err()
    .to_string();
    for expected in [
        "4 mistake(s)",
        "OTEL_TRACES_EXPORTER = \"zipkin\" is not supported: use otlp or none",
        "OTEL_EXPORTER_OTLP_PROTOCOL = \"http/json\" is not supported",
        "OTEL_TRACES_SAMPLER = \"jaeger_remote\" is not supported",
        "telemetry.user_names = \"shown\" (from SWITCHBOARD_TELEMETRY__USER_NAMES) is not one of plain, hashed, omit",
    ] {
        assert!(
            mistakes.contains(expected),
            "{expected} is not in:\n{mistakes}"
        );
    }
}
