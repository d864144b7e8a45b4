//! Exports spans and metrics with OTLP, configured by the standard `OTEL_*` variables.
//!
//! The SDK reads endpoints, headers, timeouts and queue bounds itself. No request waits for an
//! export: spans go into a bounded queue that a thread empties, and are dropped if it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gethostname::gethostname;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, ShouldSample, SpanData};
use tracing::{info, warn};

use super::Settings;
use super::counters::Counters;
use super::metrics::Metrics;
use crate::model::NodeId;

/// The protocol of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP.
    Http,
}

/// Which calls are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The sampled fraction, from 0 to 1.
    pub ratio: f64,
    /// Whether the sampled flag of a client's own trace decides instead.
    pub parent_decides: bool,
}

impl Sampling {
    /// The SDK's sampler.
    pub(super) fn sampler(self) -> Box<dyn ShouldSample> {
        let root = match self.ratio {
            ..=0.0 => Sampler::AlwaysOff,
            1.0.. => Sampler::AlwaysOn,
            ratio => Sampler::TraceIdRatioBased(ratio),
        };
        if self.parent_decides {
            Box::new(Sampler::ParentBased(Box::new(root)))
        } else {
            Box::new(root)
        }
    }
}

/// The resource attributes. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` override them.
pub(super) fn resource(settings: &Settings, node: &NodeId) -> Resource {
    let ours = [
        KeyValue::new("service.name", "switchboard"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.as_str().to_owned()),
        // Jaeger corrects clock skew between hosts. With the same `host.name` it leaves timestamps
        // unchanged.
        KeyValue::new("host.name", gethostname().to_string_lossy().into_owned()),
    ];
    let told = settings
        .resource
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(ours.into_iter().chain(told))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match &settings.service_name {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

/// The periodic exporter of metrics.
pub(super) fn figures(
    protocol: Protocol,
) -> Result<PeriodicReader<MetricExporter>, ExporterBuildError> {
    let builder = MetricExporter::builder();
    let exporter = match protocol {
        Protocol::Grpc => builder.with_tonic().build()?,
        Protocol::Http => builder.with_http().build()?,
    };
    Ok(PeriodicReader::builder(exporter).build())
}

/// The exporter of spans. It samples everything: whoever creates a span has decided already.
pub(super) fn spans(
    protocol: Protocol,
    resource: Resource,
    metrics: &Metrics,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let builder = SpanExporter::builder();
    let inner = match protocol {
        Protocol::Grpc => builder.with_tonic().build()?,
        Protocol::Http => builder.with_http().build()?,
    };
    let exporter = CountingExporter {
        inner,
        counted: metrics.spans(),
        is_away: AtomicBool::new(false),
    };
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build())
}

/// Counts exported spans, and logs once when the collector goes away and once when it is back.
#[derive(Debug)]
struct CountingExporter {
    inner: SpanExporter,
    counted: Arc<Counters>,
    is_away: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = opentelemetry_sdk::trace::SpanExporter::export(&self.inner, batch).await;
        let failed = result.is_err();
        self.counted.add(usize::from(failed), 0, spans as u64);
        let before = self.is_away.swap(failed, Ordering::Relaxed);
        match &result {
            Err(error) if !before => warn!(
                spans,
                %error,
                "Cannot export spans; they are lost until the collector answers. \
                 Check the collector and OTEL_EXPORTER_OTLP_ENDPOINT"
            ),
            Ok(()) if before => info!("The collector accepts spans again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
