//! The standard variables of OpenTelemetry.

use super::*;

#[test]
fn traces_are_exported_if_an_endpoint_or_exporter_is_set() {
    use crate::telemetry::Protocol;
    let traces = |environment: &[(&str, &str)]| {
        let telemetry = load(environment).unwrap().0.telemetry;
        let protocol =
            |export: Option<crate::telemetry::Export>| export.map(|export| export.protocol);
        (protocol(telemetry.traces), protocol(telemetry.metrics))
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

/// A variable, a value that it cannot have, and what its mistake says.
const MISTAKES: &[(&str, &str, &str)] = &[
    // For both signals.
    (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/json",
        "use grpc or http/protobuf",
    ),
    (
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "/no/such/file",
        "cannot be read: ",
    ),
    (
        "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        "/dev/null",
        "set both CLIENT_CERTIFICATE and CLIENT_KEY",
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "localhost:4318",
        "write http://localhost:4318, or https://",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://:4318",
        "it names no host",
    ),
    (
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "grpc://localhost:4317",
        "must begin with http:// or https://",
    ),
    (
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "10s",
        "is not a number from 1; times are in milliseconds",
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "0",
        "is not a number from 1",
    ),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "use gzip or none"),
    ("OTEL_EXPORTER_OTLP_INSECURE", "yes", "use true or false"),
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "both",
        "use cumulative or delta or lowmemory",
    ),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "is not a number from 1"),
    ("OTEL_BSP_SCHEDULE_DELAY", "-1", "is not a number from 1"),
    (
        "OTEL_METRIC_EXPORT_INTERVAL",
        "1m",
        "is not a number from 1",
    ),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "x", "is not a number from 1"),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "production",
        "is not a list key=value,key=value",
    ),
    ("OTEL_SDK_DISABLED", "1", "use true or false"),
];

#[test]
fn each_mistake_is_printed_once_and_values_are_checked() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
    for &(variable, value, what) in MISTAKES {
        let mistakes = mistakes(&[endpoint, (variable, value)]);
        assert!(mistakes.contains("1 mistake(s)"), "{variable}: {mistakes}");
        let expected = format!("{variable} = {value:?} ");
        assert!(
            mistakes.contains(&expected) && mistakes.contains(what),
            "{mistakes}"
        );
    }
    let mistakes = mistakes(&[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer hunter2")]);
    assert!(
        mistakes.contains("is not a list") && !mistakes.contains("hunter2"),
        "{mistakes}"
    );
}

#[test]
fn words_of_the_specification_may_be_in_upper_case() {
    let (config, _) = load(&[
        ("OTEL_TRACES_EXPORTER", "OTLP"),
        ("OTEL_METRICS_EXPORTER", "None"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "1000"),
        ("OTEL_TRACES_SAMPLER", "Always_Off"),
        ("OTEL_SDK_DISABLED", "FALSE"),
    ])
    .unwrap();
    let traces = config.telemetry.traces.unwrap();
    assert_eq!(traces.protocol, crate::telemetry::Protocol::Grpc);
    assert_eq!(traces.timeout, Duration::from_secs(1));
    assert!(config.telemetry.metrics.is_none());
    assert!(config.telemetry.sampling.ratio.abs() < 1e-9);
}

/// Variables of the specification, and some that are not in it: what the warning says.
const UNSUPPORTED: &[(&str, &str, &str)] = &[
    ("OTEL_PROPAGATORS", "b3", ": an offer's traceparent"),
    (
        "OTEL_PROPAGATORS",
        "tracecontext,b3multi",
        ": an offer's traceparent",
    ),
    ("OTEL_PROPAGATORS", "none", ": an offer's traceparent"),
    (
        "OTEL_LOGS_EXPORTER",
        "otlp",
        ": log lines go to standard error",
    ),
    ("OTEL_LOG_LEVEL", "debug", ": use log.level"),
    (
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "9464",
        ": metrics are at /metrics",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENPOINT",
        "http://a",
        ": did you mean OTEL_EXPORTER_OTLP_ENDPOINT?",
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACE_ENDPOINT",
        "http://a",
        ": did you mean OTEL_EXPORTER_OTLP_TRACES_ENDPOINT?",
    ),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://a", ""),
    ("OTEL_EXPORTER_PROMETHEUS_HOST", "a", ""),
    ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "http://a", ""),
    ("OTEL_EXPORTER_JAEGER_ENDPOINT", "http://a", ""),
    ("OTEL_BLRP_SCHEDULE_DELAY", "1000", ""),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "8", ""),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8", ""),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "8", ""),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "8", ""),
    (
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "a",
        "",
    ),
    ("OTEL_CONFIG_FILE", "a.yaml", ""),
    ("OTEL_SEMCONV_STABILITY_OPT_IN", "http", ""),
    ("OTEL_PYTHON_LOG_LEVEL", "debug", ""),
];

#[test]
fn what_is_not_supported_is_named() {
    let ignored =
        |variable: &str, value: &str| load(&[(variable, value)]).unwrap().0.telemetry.ignored;
    for (variable, value) in [
        ("OTEL_PROPAGATORS", "tracecontext"),
        ("OTEL_PROPAGATORS", "tracecontext, baggage"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=b"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "8"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d,"),
        ("OTEL_PROPAGATORS", ""),
        ("POD_IP", "10.0.0.1"),
    ] {
        assert_eq!(ignored(variable, value), [""; 0], "{variable}");
    }
    for &(variable, value, hint) in UNSUPPORTED {
        let told = ignored(variable, value);
        assert_eq!(told.len(), 1, "{variable}: {told:?}");
        assert!(
            told[0].starts_with(&format!("{variable}{hint}")),
            "{told:?}"
        );
    }
}
