//! A bounded queue of finished spans, and the thread that exports them. What the collector does not take is tried again
//! for some minutes, so that a collector that is late or away for a while costs no trace.
//!
//! The SDK's batch processor gives a batch up after four tries in a second.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::SpanId;
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tracing::{info, warn};

use super::calls::SAMPLED;
use super::counters::Counters;

/// The time between two tries while the collector does not take spans.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// A span that ended longer ago is not tried again. So a batch that the collector never takes goes in the end.
const KEPT_FOR: Duration = Duration::from_mins(5);

/// Indices of the label values of [`SPANS`](super::instruments::SPANS).
const EXPORTED: usize = 0;
const FAILED: usize = 1;
const DROPPED: usize = 2;

/// The bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct SpanLimits {
    /// How many spans may wait. Beyond it the oldest are dropped.
    pub queue: usize,
    /// How many spans one export has at most.
    pub batch: usize,
    /// How long a span waits for others to leave with.
    pub delay: Duration,
}

/// The queue. Dropping it does not stop its thread; shutting it down does.
#[derive(Debug)]
pub(super) struct SpanQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    limits: SpanLimits,
    counted: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<SpanData>,
    /// Whether the collector has not taken the last export.
    is_away: bool,
    /// When the thread must have ended, once that is asked for.
    stop_by: Option<Instant>,
    has_ended: bool,
}

impl SpanQueue {
    /// Starts the thread.
    pub(super) fn start<E: SpanExporter + 'static>(
        exporter: E,
        limits: SpanLimits,
        counted: Arc<Counters>,
    ) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            limits,
            counted,
        });
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&exporter)
        });
        Self(shared)
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        let is_alone = |attribute: &KeyValue| {
            attribute.key.as_str() == SAMPLED && attribute.value == Value::Bool(false)
        };
        if span.attributes.iter().any(is_alone) {
            span.parent_span_id = SpanId::INVALID;
        }
        let mut state = self.0.lock();
        if state.waiting.len() >= self.0.limits.queue {
            state.waiting.pop_front();
            self.0.counted.increment(DROPPED, 0);
        }
        state.waiting.push_back(span);
        if state.waiting.len() == self.0.limits.batch {
            self.0.changed.notify_all();
        }
    }

    /// Does nothing: only the end of the process waits for an export.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// Exports what waits, unless the collector is away.
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let mut state = self.0.lock();
        state.stop_by = Some(Instant::now() + timeout);
        self.0.changed.notify_all();
        let wait = self
            .0
            .changed
            .wait_timeout_while(state, timeout, |state| !state.has_ended);
        let (_state, waited) = wait.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(OTelSdkError::Timeout(timeout));
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<E: SpanExporter>(&self, exporter: &E) {
        while let Some(batch) = self.next_batch() {
            if batch.is_empty() {
                continue;
            }
            let result = futures_executor::block_on(exporter.export(batch.clone()));
            match result {
                Ok(()) => self.exported(batch.len()),
                Err(error) => self.failed(batch, &error),
            }
        }
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// Waits for spans and for their time. `None` if the thread is to end.
    fn next_batch(&self) -> Option<Vec<SpanData>> {
        let state = self.lock();
        let pause = if state.is_away {
            RETRY_EVERY
        } else {
            self.limits.delay
        };
        // While the collector is away, a full batch is no reason to ask it sooner.
        let is_due = |state: &State| !state.is_away && state.waiting.len() >= self.limits.batch;
        let wait = self.changed.wait_timeout_while(state, pause, |state| {
            state.stop_by.is_none() && !is_due(state)
        });
        let (mut state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        let is_over = |by: Instant| state.is_away || Instant::now() >= by;
        if state
            .stop_by
            .is_some_and(|by| state.waiting.is_empty() || is_over(by))
        {
            return None;
        }
        let batch = state.waiting.len().min(self.limits.batch);
        Some(state.waiting.drain(..batch).collect())
    }

    fn exported(&self, spans: usize) {
        self.counted.add(EXPORTED, 0, spans as u64);
        if std::mem::take(&mut self.lock().is_away) {
            info!("The collector accepts spans again");
        }
    }

    /// Keeps what is young enough, behind what has not been tried: so one bad batch holds up no other.
    fn failed(&self, batch: Vec<SpanData>, error: &OTelSdkError) {
        let spans = batch.len();
        self.counted.add(FAILED, 0, spans as u64);
        let now = SystemTime::now();
        let is_young = |span: &SpanData| {
            now.duration_since(span.end_time)
                .is_ok_and(|age| age < KEPT_FOR)
        };
        let mut state = self.lock();
        let room = self.limits.queue.saturating_sub(state.waiting.len());
        let mut kept: Vec<_> = batch.into_iter().filter(is_young).collect();
        kept.drain(..kept.len().saturating_sub(room));
        self.counted.add(DROPPED, 0, (spans - kept.len()) as u64);
        state.waiting.extend(kept);
        if !std::mem::replace(&mut state.is_away, true) {
            warn!(
                spans,
                %error,
                "Cannot export spans; the newest are kept and tried again. \
                 Check the collector and OTEL_EXPORTER_OTLP_ENDPOINT"
            );
        }
    }
}
