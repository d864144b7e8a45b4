//! Counts what becomes of pushed metrics. A collector that goes away is logged once, and that it is back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tracing::{info, warn};

use super::counters::Counters;

/// The counter of pushes, once the metrics exist.
pub(super) type PushCounter = Arc<OnceLock<Arc<Counters>>>;

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
