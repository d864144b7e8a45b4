//! The traces of a session's calls: which spans they have, and with which parents. Without tracing, each function here
//! only checks an empty option.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::info;

use super::State;
use super::call::CallTrace;
use crate::broker::Sender;
use crate::model::{Signal, SignalKind, TraceContext, UserName};
use crate::telemetry::{CallSpan, Message, SignalOutcome};

/// How many signals of one side have spans in a call's trace. A call that trickles candidates for hours stays readable.
pub(super) const SIGNAL_SPANS: u32 = 200;

/// The trace of a signal, until its outcome is known.
#[derive(Debug)]
pub(super) struct Traced {
    /// The parent of the receiver's span.
    pub(super) context: TraceContext,
    /// `None` if the call is not sampled.
    span: Option<CallSpan>,
}

impl State {
    pub(super) fn count(&self, kind: SignalKind, fate: SignalOutcome) {
        self.node.telemetry.metrics.signal(kind, fate);
    }

    /// Traces a signal that is sent. An offer begins the trace of its call, or joins the client's own; after a reported
    /// end of the set-up, the next offer begins another. Other signals join the call's trace.
    pub(super) fn trace_send(
        &mut self,
        to: &UserName,
        signal: &Signal,
        n: u64,
        client: Option<TraceContext>,
    ) -> Option<Box<Traced>> {
        let tracer = Arc::clone(self.node.telemetry.calls.as_ref()?);
        let known = self.calls.trace(to);
        let is_over = known.is_none_or(|known| known.ended && signal.kind == SignalKind::Offer);
        let starts_call = signal.kind.starts_call();
        let is_built = known.is_some_and(|known| known.context.sampled);
        if !starts_call && !is_built {
            return None;
        }
        let has_span = !is_over && is_built && self.counts_signal(to);
        let message = Message {
            kind: signal.kind.as_str(),
            from: &self.lease.address,
            to: &self.address_of(to),
            session: self.lease.session,
            n,
            bytes: signal.body.0.len(),
        };
        if !is_over && let Some(CallTrace { context, .. }) = known {
            if has_span {
                let span = tracer.publish(Some(&context), client.as_ref(), message);
                return Some(Box::new(Traced::of(span)));
            }
            let sampled = false;
            // The receiver usually has the trace from the offer, but may have been resumed, or have begun a call of its
            // own.
            return Some(Box::new(Traced::unbuilt(TraceContext {
                sampled,
                ..context
            })));
        }
        let before = known.map(|known| known.context);
        let begun = match tracer.unsampled_context(client.as_ref()) {
            Some(context) => Traced::unbuilt(context),
            None => Traced::of(tracer.publish(client.as_ref(), before.as_ref(), message)),
        };
        let since = begun.span.as_ref().map(CallSpan::started);
        self.calls
            .set_trace(to, CallTrace::new(begun.context, false, since));
        Some(Box::new(begun))
    }

    /// Counts a signal of a sampled call. False if it is one too many for a span.
    fn counts_signal(&mut self, to: &UserName) -> bool {
        let Some(call) = self.calls.trace(to) else {
            return false;
        };
        let signals = call.signals.saturating_add(1);
        self.calls.set_trace(to, CallTrace { signals, ..call });
        signals <= SIGNAL_SPANS
    }

    /// Records the outcome of a signal, at `at`.
    pub(super) fn trace_outcome(
        &mut self,
        to: &UserName,
        kind: SignalKind,
        fate: SignalOutcome,
        traced: Option<&mut Traced>,
        at: Option<SystemTime>,
    ) {
        let failed = matches!(
            fate,
            SignalOutcome::Absent | SignalOutcome::Full | SignalOutcome::Unavailable
        );
        if traced.is_none() && !failed {
            return;
        }
        // A failed offer has ended its call already.
        let call = self.calls.trace(to).filter(|_| failed);
        let context = traced.as_ref().map(|traced| traced.context);
        let Some(context) = context.or(call.map(|call| call.context)) else {
            return;
        };
        if failed {
            let repeats = &self.node.telemetry.repeats;
            if repeats.is_first("a signal of a call was refused") {
                info!(trace_id = context.trace_id(), session.id = %self.lease.session, signal = kind.as_str(),
                      code = fate.as_str(), "A signal of a call was refused");
            }
        }
        if let Some(mut span) = traced.and_then(|traced| traced.span.take()) {
            span.set("switchboard.outcome", fate.as_str());
            if fate == SignalOutcome::Queued {
                span.event("queued");
            }
            if failed {
                span.fail(fate.as_str());
            }
            span.end(at);
        } else if failed {
            self.tell_failure(to, kind, context, call, fate.as_str());
        }
    }

    /// Traces a received signal. The span ends when the client was told. An offer brings the trace of its call.
    pub(super) fn trace_heard(
        &mut self,
        sender: &Sender,
        trace: Option<TraceContext>,
        n: u64,
        signal: &Signal,
    ) -> Option<CallSpan> {
        let (context, tracer) = (trace?, self.node.telemetry.calls.as_ref()?);
        let span = context.sampled.then(|| {
            let message = Message {
                kind: signal.kind.as_str(),
                from: &sender.address,
                to: &self.lease.address,
                session: self.lease.session,
                n,
                bytes: signal.body.0.len(),
            };
            tracer.process(&context, message)
        });
        if signal.kind.starts_call() {
            let from = &sender.address.name;
            let known = self.calls.trace(from);
            match known {
                Some(known) if known.context.trace == context.trace => {
                    let shared = true;
                    self.calls.set_trace(from, CallTrace { shared, ..known });
                }
                // If two users call each other at once, both go on in the lesser trace.
                Some(known)
                    if !known.shared && !known.ended && known.context.trace < context.trace => {}
                _ => {
                    let context = span.as_ref().map_or(context, CallSpan::context);
                    let begun = span.as_ref().map(CallSpan::started);
                    self.calls
                        .set_trace(from, CallTrace::new(context, true, begun));
                }
            }
        }
        span
    }

    /// Records the first failure of an unsampled call all the same.
    fn tell_failure(
        &mut self,
        to: &UserName,
        kind: SignalKind,
        context: TraceContext,
        call: Option<CallTrace>,
        code: &'static str,
    ) {
        if call.is_some_and(|call| call.failed) {
            return;
        }
        if let Some(tracer) = &self.node.telemetry.calls {
            let peer = self.address_of(to);
            let event = self.call_event(&peer, "signal refused", Some(code));
            if let Some(mut span) = tracer.mark(&context, event) {
                span.set("switchboard.signal", kind.as_str());
            }
        }
        if let Some(call) = call {
            self.calls.set_trace(
                to,
                CallTrace {
                    failed: true,
                    ..call
                },
            );
        }
    }
}

impl Traced {
    /// Whether there is a span.
    pub(super) fn is_built(&self) -> bool {
        self.span.is_some()
    }

    /// Records the outcome, and ends the span at `at`, or now.
    pub(super) fn ends(self, fate: SignalOutcome, at: Option<SystemTime>) {
        if let Some(mut span) = self.span {
            span.set("switchboard.outcome", fate.as_str());
            span.end(at);
        }
    }

    pub(super) fn of(span: CallSpan) -> Self {
        Self {
            context: span.context(),
            span: Some(span),
        }
    }

    pub(super) fn unbuilt(context: TraceContext) -> Self {
        Self {
            context,
            span: None,
        }
    }
}
