//! How spans and figures leave the process: by OTLP, as the standard `OTEL_*` variables say.
//!
//! Endpoints, headers, time-outs and the bounds of the queue are read by the SDK itself. Nothing here is waited for: spans go into a bounded
//! queue that a thread empties, and what does not fit is dropped.

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

/// How OTLP travels.
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
    /// How many of them, from 0 to 1.
    pub ratio: f64,
    /// Whether a client that sends a trace of its own decides.
    pub parent_decides: bool,
}

impl Sampling {
    /// As the SDK has it.
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

/// What this process is. The environment (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) has the last word.
pub(super) fn resource(settings: &Settings, node: &NodeId) -> Resource {
    let ours = [
        KeyValue::new("service.name", "switchboard"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.as_str().to_owned()),
        // Jaeger takes spans of one host for spans by one clock, and shifts none of them.
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

/// What sends figures from time to time.
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

/// What takes spans. Whoever builds one has decided that it is to be exported.
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

/// An exporter that counts, and says once that the collector is away, and once that it is back.
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
                "Spans could not be exported, and are lost until the collector answers: look at OTEL_EXPORTER_OTLP_ENDPOINT"
            ),
            Ok(()) if before => info!("The collector takes spans again"),
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
