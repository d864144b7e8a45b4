//! Telemetry: log lines, metrics, and traces of calls.

mod calls;
mod counters;
mod counting;
mod export;
mod instruments;
mod labels;
mod lines;
mod metrics;
mod repeats;
mod span_queue;

pub use calls::{CallEvent, CallSpan, CallTracer, Message, UserNames, signed};
pub use counters::GaugeGuard;
pub use export::{Export, Protocol, Sampling};
pub use labels::{RedisTrouble, Renewed, SignalOutcome, Transport, Webhook};
pub use metrics::{Metrics, View};
pub use repeats::Repeats;
pub use span_queue::SpanLimits;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{error, warn};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use self::lines::Lines;
use crate::model::NodeId;

/// Time limit for exporting the last spans when the process ends.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(2);

/// Time limit for writing the last log lines when the process ends.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

/// The settings of telemetry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The filter for log lines (`EnvFilter` syntax).
    pub log_level: String,
    /// How to export spans; `None` for no export.
    pub traces: Option<Export>,
    /// How to push metrics; `None` for no push. Prometheus can always scrape them.
    pub metrics: Option<Export>,
    /// The bounds of the queue of spans.
    pub span_limits: SpanLimits,
    /// What is to be said once of variables of OpenTelemetry that are set and not supported.
    pub ignored: Vec<String>,
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
    /// The TLS settings of an exporter cannot be used.
    #[error(
        "cannot start the OTLP export: {0}. Check the PEM files of OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE \
         and _CLIENT_KEY"
    )]
    Tls(String),
}

/// The telemetry that the other modules report to. The default one exports nothing; its metrics can
/// still be read.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The tracer of calls, if spans are exported.
    pub calls: Option<Arc<CallTracer>>,
    /// What to log only once a second.
    pub repeats: Arc<Repeats>,
}

/// The exporters, to be stopped with the process.
#[derive(Debug)]
pub struct Running {
    metrics: Arc<Metrics>,
    spans: Option<SdkTracerProvider>,
}

/// The writer of log lines.
#[derive(Debug)]
pub struct LogWriter(Lines);

/// Starts logging to standard error, and the configured exports. Must be called within the runtime.
pub fn start(
    settings: &Settings,
    node: &NodeId,
) -> Result<(Telemetry, Running, LogWriter), StartError> {
    let resource = export::resource(settings, node);
    let push = settings.metrics.as_ref().map(export::push).transpose()?;
    let (push, pushes) = push.unzip();
    let metrics = Arc::new(Metrics::new(resource.clone(), push));
    if let Some(pushes) = pushes {
        let _ = pushes.set(metrics.pushes());
    }
    let spans = settings.traces.as_ref();
    let spans = spans
        .map(|export| export::spans(export, settings.span_limits, resource, &metrics))
        .transpose()?;
    let writer = Lines::start(std::io::stderr(), metrics.lines_dropped());
    subscribe(settings, writer.clone())?;
    // The default hook waits for whoever reads standard error.
    std::panic::set_hook(Box::new(|panic| {
        error!(%panic, "A task panicked, which is a bug: please report it with the log lines before");
    }));
    if !settings.ignored.is_empty() {
        let variables = settings.ignored.join("; ");
        warn!(
            variables,
            "Variables of OpenTelemetry are set that are not supported, and have no effect"
        );
    }
    let calls = spans.as_ref().map(|spans| {
        let scope =
            InstrumentationScope::builder("switchboard").with_version(env!("CARGO_PKG_VERSION"));
        let tracer = spans.tracer_with_scope(scope.build());
        Arc::new(CallTracer::new(tracer, settings, node.clone()))
    });
    let telemetry = Telemetry {
        metrics: Arc::clone(&metrics),
        calls,
        repeats: Arc::default(),
    };
    Ok((telemetry, Running { metrics, spans }, LogWriter(writer)))
}

fn subscribe(settings: &Settings, writer: Lines) -> Result<(), StartError> {
    // Suppressed at every level: at trace, tungstenite logs whole frames, with message bodies and
    // TURN credentials.
    let discreet = filter_fn(|place| !place.target().starts_with("tungstenite"))
        .with_max_level_hint(LevelFilter::TRACE);
    // Strangers can make rustls warn with every handshake.
    let level = format!("rustls=error,{}", settings.log_level);
    let filter = EnvFilter::try_new(level)?.and(discreet);
    let lines = lines(settings.log_format, writer).with_filter(filter);
    tracing_subscriber::registry().with(lines).init();
    Ok(())
}

fn lines(format: LogFormat, writer: Lines) -> Box<dyn Layer<Registry> + Send + Sync> {
    let terminal = std::io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
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

impl LogWriter {
    /// Waits until the last lines are written, or nobody reads them. Blocks.
    pub fn finish(&self) {
        self.0.finish(LAST_LINES_WITHIN);
    }
}
