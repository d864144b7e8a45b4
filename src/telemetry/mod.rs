//! What a node tells its operator: log lines, figures, and the traces of calls.

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

/// How long the last spans may take to leave when the process ends.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(2);

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: String,
    /// Whether spans are exported, and how.
    pub traces: Option<Protocol>,
    /// Whether figures are pushed, and how. Prometheus can always read them.
    pub metrics: Option<Protocol>,
    /// Which calls are traced.
    pub sampling: Sampling,
    /// How users are shown in spans.
    pub user_names: UserNames,
    /// What else the process is known by.
    pub resource: Vec<(String, String)>,
    /// What the service is called, if not switchboard.
    pub service_name: Option<String>,
    /// What carries messages, as spans call it.
    pub system: &'static str,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter is none.
    #[error("log.level is not a filter such as info or switchboard=debug: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// An exporter cannot be built.
    #[error("OTLP export cannot start: {0}. Look at OTEL_EXPORTER_OTLP_ENDPOINT and its relatives")]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// What the rooms of a node tell it to. Without a process behind it, figures go nowhere but to whoever reads them.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Spans of calls, if they are exported.
    pub calls: Option<Arc<CallTracer>>,
}

/// What has to be stopped with the process.
#[derive(Debug)]
pub struct Running {
    metrics: Arc<Metrics>,
    spans: Option<SdkTracerProvider>,
}

/// Starts to write log lines to standard error, and to export what is to be exported. Needs the runtime.
pub fn start(settings: &Settings, node: &NodeId) -> Result<(Telemetry, Running), StartError> {
    // Whatever is asked for: at trace it writes down every frame, and with it what clients say and what opens relays for them.
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
    // Without these hints every line of every crate below `info` would be looked at: half a microsecond for each signal.
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
    /// Hands the last spans and figures over, and waits for that a little. Blocks.
    pub fn stop(self) {
        // What a collector did not take was told by the exporter.
        if let Some(spans) = self.spans {
            let _ = spans.shutdown_with_timeout(LAST_SPANS_WITHIN);
        }
        self.metrics.stop(LAST_SPANS_WITHIN);
    }
}
