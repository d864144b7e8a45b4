//! The traces of a session's calls: which spans they have, and with which parents. Without tracing, each function here
//! only checks an empty option.

use std::time::SystemTime;

use tracing::debug;

use super::State;
use super::call::CallTrace;
use crate::broker::Sender;
use crate::model::{LeaveReason, Signal, SignalKind, TraceContext, UserName};
use crate::telemetry::{CallSpan, Message, SignalOutcome};

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
        let tracer = self.node.telemetry.calls.as_ref()?;
        let known = self.calls.trace(to);
        let is_over = known.is_none_or(|known| known.ended && signal.kind == SignalKind::Offer);
        let starts_call = signal.kind.starts_call();
        let is_built = known.is_some_and(|known| known.context.sampled);
        if !starts_call && !is_built {
            return None;
        }
        let message = Message {
            kind: signal.kind.as_str(),
            from: &self.lease.address,
            to: &self.address_of(to),
            session: self.lease.session,
            n,
            bytes: signal.body.0.len(),
        };
        if !is_over && let Some(CallTrace { context, .. }) = known {
            if context.sampled {
                let span = tracer.publish(Some(&context), client.as_ref(), message);
                return Some(Box::new(Traced::of(span)));
            }
            // The receiver usually has the trace from the offer, but may have been resumed, or have begun a call of its
            // own.
            return Some(Box::new(Traced::unbuilt(context)));
        }
        let before = known.map(|known| known.context);
        let begun = match tracer.unsampled_context(client.as_ref()) {
            Some(context) => Traced::unbuilt(context),
            None => Traced::of(tracer.publish(client.as_ref(), before.as_ref(), message)),
        };
        self.calls
            .set_trace(to, CallTrace::new(begun.context, false));
        Some(Box::new(begun))
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
            debug!(trace_id = context.trace_id(), session.id = %self.lease.session, signal = kind.as_str(),
                   code = fate.as_str(), "A signal of a call was refused");
        }
        if let Some(span) = traced.and_then(|traced| traced.span.take()) {
            span.set("switchboard.outcome", fate.as_str());
            if fate == SignalOutcome::Queued {
                span.event("queued");
            }
            if failed {
                span.fail(fate.as_str());
            }
            span.end(at);
        } else if failed {
            self.tell_failure(to, context, call, "signal refused", fate.as_str());
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
                    self.calls.set_trace(from, CallTrace::new(context, true));
                }
            }
        }
        span
    }

    /// Traces a `leave` that is sent.
    pub(super) fn trace_leave(
        &self,
        to: &UserName,
        call: Option<CallTrace>,
        reason: LeaveReason,
        n: u64,
    ) -> Option<Traced> {
        let (tracer, call) = (self.node.telemetry.calls.as_ref()?, call?);
        if !call.context.sampled {
            return None;
        }
        let message = Message {
            kind: "leave",
            from: &self.lease.address,
            to: &self.address_of(to),
            session: self.lease.session,
            n,
            bytes: 0,
        };
        let span = tracer.publish(Some(&call.context), None, message);
        span.set("switchboard.leave.reason", reason.as_str());
        Some(Traced::of(span))
    }

    /// Traces the end of a call by its peer. If the peer is lost, the call has failed.
    pub(super) fn trace_left(
        &self,
        sender: &Sender,
        trace: Option<TraceContext>,
        call: Option<CallTrace>,
        n: u64,
        reason: LeaveReason,
    ) -> Option<CallSpan> {
        let tracer = self.node.telemetry.calls.as_ref()?;
        let failure = matches!(reason, LeaveReason::Lost | LeaveReason::NodeLost);
        let failure = failure.then(|| reason.as_str());
        let call = call.map(|call| call.context);
        if let (Some(context), Some(code)) = (trace.or(call), failure) {
            debug!(trace_id = context.trace_id(), session.id = %self.lease.session, code, "A call peer is gone");
        }
        let Some(context) = trace.or(call).filter(|context| context.sampled) else {
            return tracer.mark(&call?, "peer gone", failure);
        };
        let message = Message {
            kind: "leave",
            from: &sender.address,
            to: &self.lease.address,
            session: self.lease.session,
            n,
            bytes: 0,
        };
        let span = tracer.process(&context, message);
        span.set("switchboard.leave.reason", reason.as_str());
        if let Some(code) = failure {
            span.fail(code);
        }
        Some(span)
    }

    /// Marks an event in the traces of all calls.
    pub fn mark(&self, what: &'static str) {
        let Some(tracer) = &self.node.telemetry.calls else {
            return;
        };
        for (_, call) in self.calls.traces() {
            if let Some(span) = tracer.mark(&call.context, what, None) {
                span.set("session.id", self.lease.session.to_string());
            }
        }
    }

    /// Marks an event, or a failure, in the trace of one call. Returns the trace if it is sampled.
    pub(super) fn mark_one(
        &self,
        peer: &UserName,
        what: &'static str,
        failure: Option<&'static str>,
    ) -> Option<Traced> {
        let tracer = self.node.telemetry.calls.as_ref()?;
        let call = self.calls.trace(peer)?;
        let span = tracer.mark(&call.context, what, failure)?;
        span.set("session.id", self.lease.session.to_string());
        span.set(
            "switchboard.session.generation",
            i64::from(self.lease.generation),
        );
        let context = span.context();
        call.context.sampled.then_some(Traced::unbuilt(context))
    }

    /// Records the first failure of an unsampled call all the same.
    fn tell_failure(
        &mut self,
        to: &UserName,
        context: TraceContext,
        call: Option<CallTrace>,
        what: &'static str,
        code: &'static str,
    ) {
        if call.is_some_and(|call| call.failed) {
            return;
        }
        if let Some(tracer) = &self.node.telemetry.calls {
            tracer.mark(&context, what, Some(code));
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
        if let Some(span) = self.span {
            span.set("switchboard.outcome", fate.as_str());
            span.end(at);
        }
    }

    fn of(span: CallSpan) -> Self {
        Self {
            context: span.context(),
            span: Some(span),
        }
    }

    fn unbuilt(context: TraceContext) -> Self {
        Self {
            context,
            span: None,
        }
    }
}
