//! Counts what becomes of spans and of pushed metrics. A collector that goes away is logged once, and that it is back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanProcessor};
use tracing::{info, warn};

use super::counters::Counters;

/// Index of the label value for spans that did not fit into the queue.
const DROPPED: usize = 2;

/// The counter of pushes, once the metrics exist.
pub(super) type PushCounter = Arc<OnceLock<Arc<Counters>>>;

/// Drops spans that do not fit into the queue of the batch processor, which would not say how many it drops.
#[derive(Debug)]
pub(super) struct BoundedSpans {
    inner: BatchSpanProcessor,
    queue: usize,
    waiting: Arc<AtomicUsize>,
    counted: Arc<Counters>,
}

impl BoundedSpans {
    pub(super) fn new(
        inner: BatchSpanProcessor,
        queue: usize,
        waiting: Arc<AtomicUsize>,
        counted: Arc<Counters>,
    ) -> Self {
        Self {
            inner,
            queue,
            waiting,
            counted,
        }
    }
}

impl SpanProcessor for BoundedSpans {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.queue {
            return self.inner.on_end(span);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.counted.increment(DROPPED, 0);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Exports spans.
#[derive(Debug)]
pub(super) struct CountingSpans {
    inner: SpanExporter,
    /// Spans in the queue of the processor.
    waiting: Arc<AtomicUsize>,
    counted: Arc<Counters>,
    is_away: AtomicBool,
}

impl CountingSpans {
    pub(super) fn new(inner: SpanExporter, counted: Arc<Counters>) -> Self {
        Self {
            inner,
            waiting: Arc::default(),
            counted,
            is_away: AtomicBool::new(false),
        }
    }

    pub(super) fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }
}

impl opentelemetry_sdk::trace::SpanExporter for CountingSpans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
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

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Pushes metrics. Nothing waits for it: what one push had not said, the next one says.
pub(super) struct CountingPush {
    inner: MetricExporter,
    counted: PushCounter,
    is_away: AtomicBool,
}

impl CountingPush {
    pub(super) fn new(inner: MetricExporter, counted: PushCounter) -> Self {
        Self {
            inner,
            counted,
            is_away: AtomicBool::new(false),
        }
    }
}

impl PushMetricExporter for CountingPush {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        let failed = result.is_err();
        if let Some(counted) = self.counted.get() {
            counted.increment(usize::from(failed), 0);
        }
        let before = self.is_away.swap(failed, Ordering::Relaxed);
        match &result {
            Err(error) if !before => warn!(
                %error,
                "Cannot push metrics. Check the collector and OTEL_EXPORTER_OTLP_ENDPOINT"
            ),
            Ok(()) if before => info!("The collector accepts metrics again"),
            _ => {}
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
