//! Telemetry: log lines, metrics, and traces of calls.

mod calls;
mod counters;
mod export;
mod instruments;
mod labels;
mod metrics;

pub use calls::{CallSpan, CallTracer, Message, UserNames, signed};
pub use counters::GaugeGuard;
pub use export::{Protocol, Sampling};
pub use labels::{RedisTrouble, Renewed, SignalOutcome, Transport};
pub use metrics::{Metrics, View};

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::model::NodeId;

/// Time limit for exporting the last spans when the process ends.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(2);

/// The settings of telemetry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The filter for log lines (`EnvFilter` syntax).
    pub log_level: String,
    /// The protocol for exporting spans; `None` for no export.
    pub traces: Option<Protocol>,
    /// The protocol for pushing metrics; `None` for no push. Prometheus can always scrape them.
    pub metrics: Option<Protocol>,
    /// Which calls are traced.
    pub sampling: Sampling,
    /// How user names appear in spans.
    pub user_names: UserNames,
    /// More resource attributes.
    pub resource: Vec<(String, String)>,
    /// The service name, if not `switchboard`.
    pub service_name: Option<String>,
    /// The `messaging.system` of spans: `memory` or `redis`.
    pub system: &'static str,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable on a terminal, JSON otherwise.
    Auto,
    /// Human-readable.
    Human,
    /// One JSON object per line.
    Json,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log filter is invalid.
    #[error("log.level is not a log filter such as info or switchboard=debug: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// An exporter cannot be built.
    #[error(
        "cannot start the OTLP export: {0}. Check OTEL_EXPORTER_OTLP_ENDPOINT and related variables"
    )]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The telemetry that the other modules report to. The default one exports nothing; its metrics can
/// still be read.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The tracer of calls, if spans are exported.
    pub calls: Option<Arc<CallTracer>>,
}

/// The exporters, to be stopped with the process.
#[derive(Debug)]
pub struct Running {
    metrics: Arc<Metrics>,
    spans: Option<SdkTracerProvider>,
}

/// Starts logging to standard error, and the configured exports. Must be called within the runtime.
pub fn start(settings: &Settings, node: &NodeId) -> Result<(Telemetry, Running), StartError> {
    // Suppressed at every level: at trace, tungstenite logs whole frames, with message bodies and
    // TURN credentials.
    let discreet = filter_fn(|place| !place.target().starts_with("tungstenite"))
        .with_max_level_hint(LevelFilter::TRACE);
    let filter = EnvFilter::try_new(&settings.log_level)?.and(discreet);
    let resource = export::resource(settings, node);
    let push = settings.metrics.map(export::figures).transpose()?;
    let metrics = Arc::new(Metrics::new(resource.clone(), push));
    let Some(protocol) = settings.traces else {
        let lines =
            tracing_subscriber::registry().with(lines(settings.log_format).with_filter(filter));
        lines.init();
        let telemetry = Telemetry {
            metrics: Arc::clone(&metrics),
            calls: None,
        };
        let spans = None;
        return Ok((telemetry, Running { metrics, spans }));
    };
    let spans = export::spans(protocol, resource, &metrics)?;
    // Without these hints every event below `info` would be checked by both layers: half a
    // microsecond per signal.
    let only_calls =
        filter_fn(|place| place.target() == calls::TARGET).with_max_level_hint(LevelFilter::INFO);
    let not_calls =
        filter_fn(|place| place.target() != calls::TARGET).with_max_level_hint(LevelFilter::TRACE);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(spans.tracer("switchboard"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(only_calls);
    tracing_subscriber::registry()
        .with(lines(settings.log_format).with_filter(filter.and(not_calls)))
        .with(layer)
        .init();
    let calls = CallTracer::new(settings.sampling, settings.user_names, settings.system);
    let telemetry = Telemetry {
        metrics: Arc::clone(&metrics),
        calls: Some(Arc::new(calls)),
    };
    let spans = Some(spans);
    Ok((telemetry, Running { metrics, spans }))
}

fn lines(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let terminal = std::io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if human {
        lines.with_target(false).with_ansi(terminal).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    }
}

impl Running {
    /// Exports the last spans and metrics within the time limit. Blocks.
    pub fn stop(self) {
        // The exporter has logged what the collector did not take.
        if let Some(spans) = self.spans {
            let _ = spans.shutdown_with_timeout(LAST_SPANS_WITHIN);
        }
        self.metrics.stop(LAST_SPANS_WITHIN);
    }
}
