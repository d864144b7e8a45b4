//! The metrics of a node: recorded where something happens, read by Prometheus or pushed.
//!
//! Events of the hot path are plain atomic counters. Histograms are only for what happens once a
//! batch, a second or a call.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder as _, TextEncoder};

use super::counters::{Counters, GaugeGuard, Gauges};
use super::counting::CountingPush;
use super::instruments::{self, Instrument};
use super::labels::{RedisTrouble, Renewed, SignalOutcome, Transport, Webhook};
use crate::model::{CloseReason, LeaveReason, PairKind, PeerState, Refusal, Report, SignalKind};

/// The index of a label value; 0 if it is unknown.
fn index_of(words: &[&str], word: &str) -> usize {
    let place = words.iter().position(|known| *known == word);
    place.unwrap_or_default()
}

const RENEWALS: [&str; 5] = ["renewed", "regained", "replaced", "lost", "failed"];
const TROUBLES: [&str; 4] = ["connection", "timeout", "refused", "busy"];
/// The index of `leave` after the kinds of signals.
const LEAVE: usize = SignalKind::ALL.len();

/// A snapshot for the gauges.
#[allow(clippy::struct_excessive_bools)] // Each is a gauge of 0 or 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Names held by sessions of this node.
    pub names: u64,
    /// Sides of calls.
    pub calls: u64,
    /// Other live nodes that this node knows.
    pub nodes_seen: u64,
    /// Whether the node is ready for new sessions.
    pub ready: bool,
    /// Whether the node drains.
    pub draining: bool,
    /// Whether the broker answers.
    pub broker_reached: bool,
    /// Whether the broker does everything that the node needs.
    pub broker_usable: bool,
    /// Jobs that wait for the broker.
    pub broker_queue: u64,
}

/// The metrics of one node.
pub struct Metrics {
    provider: SdkMeterProvider,
    registry: prometheus::Registry,
    meter: Meter,
    connections: Gauges,
    sessions: Gauges,
    logins: Counters,
    resumes: Counters,
    ended: Counters,
    signals: Counters,
    refusals: Counters,
    leaves: Counters,
    reports: Counters,
    overflows: Counters,
    leases: Counters,
    gaps: Counters,
    troubles: Counters,
    webhooks: Counters,
    webhooks_waiting: Arc<AtomicU64>,
    spans: Arc<Counters>,
    pushes: Arc<Counters>,
    lines_dropped: Arc<Counters>,
    setup: Histogram<f64>,
    delivery: Histogram<f64>,
    batch: Histogram<u64>,
    redis: Histogram<f64>,
    probe: Histogram<f64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Resource::builder_empty().build(), None)
    }
}

impl Metrics {
    /// Creates the metrics of the node that the resource describes. `push` exports them
    /// periodically.
    pub(super) fn new(resource: Resource, push: Option<Push>) -> Self {
        let (provider, registry) = provider(resource, push);
        let meter = provider.meter("switchboard");
        let by = |instrument, label, words| Counters::by(&meter, instrument, label, words);
        let by_result =
            |instrument, results: &[&'static str]| by(instrument, "result", results.to_vec());
        let by_connection = |instrument| gauges(&meter, instrument);
        Self {
            connections: by_connection(instruments::CONNECTIONS),
            sessions: by_connection(instruments::SESSIONS),
            logins: by_result(instruments::LOGINS, instruments::LOGIN_RESULTS),
            resumes: by_result(instruments::RESUMES, instruments::RESUME_RESULTS),
            ended: by(instruments::ENDED, "reason", instruments::endings()),
            signals: Counters::by_two(
                &meter,
                instruments::SIGNALS,
                ("kind", instruments::signals()),
                (
                    "outcome",
                    SignalOutcome::ALL
                        .into_iter()
                        .map(SignalOutcome::as_str)
                        .collect(),
                ),
            ),
            refusals: by(instruments::REFUSALS, "code", instruments::codes()),
            leaves: by(instruments::LEAVES, "reason", instruments::reasons()),
            reports: Counters::by_two(
                &meter,
                instruments::REPORTS,
                ("state", instruments::states()),
                ("pair", instruments::pairs()),
            ),
            overflows: by(instruments::MAILBOX_OVERFLOWS, "", vec![""]),
            leases: by_result(instruments::LEASES, &RENEWALS),
            gaps: by(instruments::GAPS, "scope", instruments::GAP_SCOPES.to_vec()),
            troubles: by(instruments::REDIS_ERRORS, "kind", TROUBLES.to_vec()),
            webhooks: by_result(instruments::WEBHOOKS, instruments::WEBHOOK_RESULTS),
            webhooks_waiting: Arc::default(),
            spans: Arc::new(by_result(instruments::SPANS, instruments::SPAN_RESULTS)),
            pushes: Arc::new(by_result(instruments::PUSHES, instruments::PUSH_RESULTS)),
            lines_dropped: Arc::new(by(instruments::LINES_DROPPED, "", vec![""])),
            setup: seconds(&meter, instruments::SETUP, &SETUPS),
            delivery: seconds(&meter, instruments::DELIVERY, &LATENCIES),
            batch: sizes(&meter, instruments::BATCH, &BATCHES),
            redis: seconds(&meter, instruments::REDIS, &LATENCIES),
            probe: seconds(&meter, instruments::PROBE, &LATENCIES),
            meter,
            provider,
            registry,
        }
    }

    /// Registers the gauges, which read `view`. `broker` is the kind of broker.
    pub fn observe(
        &self,
        broker: &'static str,
        view: impl Fn() -> View + Clone + Send + Sync + 'static,
    ) {
        let gauge = |instrument: Instrument, read: fn(View) -> u64| {
            let view = view.clone();
            let _ = self
                .meter
                .u64_observable_gauge(instrument.name)
                .with_unit(instrument.unit)
                .with_description(instrument.help)
                .with_callback(move |observer| observer.observe(read(view()), &[]))
                .build();
        };
        gauge(instruments::NAMES, |view| view.names);
        gauge(instruments::CALLS, |view| view.calls);
        gauge(instruments::NODES_SEEN, |view| view.nodes_seen);
        gauge(instruments::READY, |view| u64::from(view.ready));
        gauge(instruments::DRAINING, |view| u64::from(view.draining));
        gauge(instruments::FABRIC_REACHED, |view| {
            u64::from(view.broker_reached)
        });
        gauge(instruments::FABRIC_USABLE, |view| {
            u64::from(view.broker_usable)
        });
        gauge(instruments::FABRIC_QUEUE, |view| view.broker_queue);
        let waiting = Arc::clone(&self.webhooks_waiting);
        let _ = self
            .meter
            .u64_observable_gauge(instruments::WEBHOOKS_WAITING.name)
            .with_unit(instruments::WEBHOOKS_WAITING.unit)
            .with_description(instruments::WEBHOOKS_WAITING.help)
            .with_callback(move |observer| observer.observe(waiting.load(Ordering::Relaxed), &[]))
            .build();
        let labels = [
            KeyValue::new("version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("fabric", broker),
        ];
        let _ = self
            .meter
            .u64_observable_gauge(instruments::BUILD.name)
            .with_description(instruments::BUILD.help)
            .with_callback(move |observer| observer.observe(1, &labels))
            .build();
    }

    /// The metrics in Prometheus' text format, with its content type.
    pub fn exposition(&self) -> (&'static str, Vec<u8>) {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        (prometheus::TEXT_FORMAT, text)
    }

    /// Pushes the last values within the time limit. Blocks.
    pub(super) fn stop(&self, within: Duration) {
        // A failure cannot be reported any more.
        let _ = self.provider.shutdown_with_timeout(within);
    }

    // === What happens ===

    /// A client connected with this codec. Drop the guard when the connection ends.
    pub fn connected(&self, by: Transport, codec: &str) -> GaugeGuard {
        self.connections
            .enter(by as usize, index_of(instruments::DIALECTS, codec))
    }

    /// A client logged in. Drop the guard when the session leaves this connection.
    pub fn logged_in(&self, by: Transport, codec: &str) -> GaugeGuard {
        self.sessions
            .enter(by as usize, index_of(instruments::DIALECTS, codec))
    }

    /// A login was answered.
    pub fn login(&self, result: Result<(), &Refusal>) {
        self.logins
            .increment_label(result.map_or_else(Refusal::code, |()| "ok"));
    }

    /// A resume was answered.
    pub fn resume(&self, result: Result<(), &str>) {
        self.resumes.increment_label(match result {
            Ok(()) => "ok",
            Err(code) => code,
        });
    }

    /// A connection ended.
    pub fn ended(&self, reason: CloseReason) {
        self.ended.increment_label(reason.label());
    }

    /// A signal's outcome is known.
    pub fn signal(&self, kind: SignalKind, fate: SignalOutcome) {
        self.signals.increment(kind as usize, fate as usize);
    }

    /// The outcome of a leave is known.
    pub fn leave_sent(&self, fate: SignalOutcome) {
        self.signals.increment(LEAVE, fate as usize);
    }

    /// A client was told an error.
    pub fn refused(&self, refusal: &Refusal) {
        self.refusals.increment_label(refusal.code());
    }

    /// A client was told that a call is over.
    pub fn left(&self, reason: LeaveReason) {
        self.leaves.increment_label(reason.as_str());
    }

    /// A client reported the state of its peer connection.
    pub fn reported(&self, report: Report) {
        let pair = report.pair.map_or("unknown", PairKind::as_str);
        self.reports.increment_labels(report.state.as_str(), pair);
        if let (PeerState::Connected, Some(after)) = (report.state, report.after) {
            self.setup
                .record(after.as_secs_f64(), &[KeyValue::new("pair", pair)]);
        }
    }

    /// A signal, or other mail of a session, found no room in its mailbox.
    pub fn mailbox_overflowed(&self) {
        self.overflows.increment(0, 0);
    }

    /// Leases were renewed, or were not.
    pub fn renewed(&self, result: Renewed, count: usize) {
        self.leases.add(result as usize, 0, count as u64);
    }

    /// Events from Redis were missed: by one session, or possibly by all.
    pub fn gap(&self, one_session: bool) {
        self.gaps.increment(usize::from(one_session), 0);
    }

    /// Something went wrong with Redis.
    pub fn redis_failed(&self, trouble: RedisTrouble) {
        self.troubles.increment(trouble as usize, 0);
    }

    /// Something became of events for webhooks.
    pub fn webhooks(&self, result: Webhook, count: u64) {
        self.webhooks.add(result as usize, 0, count);
    }

    /// So many events wait for the receiver of webhooks.
    pub fn webhooks_wait(&self, waiting: usize) {
        self.webhooks_waiting
            .store(waiting as u64, Ordering::Relaxed);
    }

    /// A pipeline was answered.
    pub fn pipeline(&self, size: usize, took: Duration) {
        self.batch.record(size as u64, &[]);
        self.redis.record(took.as_secs_f64(), &[]);
    }

    /// A probe came back.
    pub fn probed(&self, took: Duration) {
        self.probe.record(took.as_secs_f64(), &[]);
    }

    /// A signal was written to a connection this long after it reached the node.
    pub fn delivered(&self, took: Duration) {
        self.delivery.record(took.as_secs_f64(), &[]);
    }

    /// The counter of spans, by what became of them.
    pub(super) fn spans(&self) -> Arc<Counters> {
        Arc::clone(&self.spans)
    }

    /// The counter of pushes of metrics.
    pub(super) fn pushes(&self) -> Arc<Counters> {
        Arc::clone(&self.pushes)
    }

    /// The counter of log lines that were dropped.
    pub(super) fn lines_dropped(&self) -> Arc<Counters> {
        Arc::clone(&self.lines_dropped)
    }
}

type Push = opentelemetry_sdk::metrics::PeriodicReader<CountingPush>;

/// A provider that Prometheus reads through the registry, and that pushes if it is to.
fn provider(resource: Resource, push: Option<Push>) -> (SdkMeterProvider, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let mut provider = SdkMeterProvider::builder().with_resource(resource);
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .without_target_info()
        .build();
    // Fails only if two exporters share a registry.
    if let Ok(reader) = reader {
        provider = provider.with_reader(reader);
    }
    if let Some(push) = push {
        provider = provider.with_reader(push);
    }
    (provider.build(), registry)
}

const LATENCIES: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    5.0,
];
const SETUPS: [f64; 13] = [
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0,
];
const BATCHES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

fn seconds(meter: &Meter, instrument: Instrument, boundaries: &[f64]) -> Histogram<f64> {
    meter
        .f64_histogram(instrument.name)
        .with_unit(instrument.unit)
        .with_description(instrument.help)
        .with_boundaries(boundaries.to_vec())
        .build()
}

fn sizes(meter: &Meter, instrument: Instrument, boundaries: &[f64]) -> Histogram<u64> {
    meter
        .u64_histogram(instrument.name)
        .with_unit(instrument.unit)
        .with_description(instrument.help)
        .with_boundaries(boundaries.to_vec())
        .build()
}

/// A gauge by transport and codec. The label `dialect` keeps its name for existing dashboards.
fn gauges(meter: &Meter, instrument: Instrument) -> Gauges {
    let transports = ("transport", instruments::TRANSPORTS);
    let codecs = ("dialect", instruments::DIALECTS);
    Gauges::by_two(meter, instrument, transports, codecs)
}
