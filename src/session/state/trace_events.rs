//! The end and the events of a call in its trace.

use tracing::info;

use super::State;
use super::call::CallTrace;
use super::trace::{SIGNAL_SPANS, Traced};
use crate::broker::Sender;
use crate::model::{Address, LeaveReason, TraceContext, UserName};
use crate::telemetry::{CallEvent, CallSpan, Message};

impl State {
    /// Traces a `leave` that is sent. The end of a call that was connected is a trace of its own, with a link: it may
    /// come hours later.
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
        let (parent, link) = if call.ended {
            (None, Some(&call.context))
        } else {
            (Some(&call.context), None)
        };
        let mut span = tracer.publish(parent, link, message);
        span.set("switchboard.leave.reason", reason.as_str());
        let left_out = call.signals.saturating_sub(SIGNAL_SPANS);
        if left_out > 0 {
            span.set("switchboard.signals_without_span", i64::from(left_out));
        }
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
        let repeats = &self.node.telemetry.repeats;
        if let (Some(context), Some(code)) = (trace.or(call), failure)
            && repeats.is_first("a call peer is gone")
        {
            info!(trace_id = context.trace_id(), session.id = %self.lease.session, code, "A call peer is gone");
        }
        let Some(context) = trace.or(call).filter(|context| context.sampled) else {
            return tracer.mark(
                &call?,
                self.call_event(&sender.address, "peer gone", failure),
            );
        };
        let message = Message {
            kind: "leave",
            from: &sender.address,
            to: &self.lease.address,
            session: self.lease.session,
            n,
            bytes: 0,
        };
        let mut span = tracer.process(&context, message);
        span.set("switchboard.leave.reason", reason.as_str());
        if let Some(code) = failure {
            span.fail(code);
        }
        Some(span)
    }

    /// Marks an event in the traces of all calls.
    pub fn mark(&self, what: &'static str) {
        if let Some(tracer) = &self.node.telemetry.calls {
            for (peer, call) in self.calls.traces() {
                let peer = self.address_of(peer);
                tracer.mark(&call.context, self.call_event(&peer, what, None));
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
        let peer = self.address_of(peer);
        let mut span = tracer.mark(&call.context, self.call_event(&peer, what, failure))?;
        span.set(
            "switchboard.session.generation",
            i64::from(self.lease.generation),
        );
        let context = span.context();
        call.context.sampled.then_some(Traced::unbuilt(context))
    }

    /// An event of a call with this peer that happens now.
    pub(super) fn call_event<'a>(
        &'a self,
        peer: &'a Address,
        what: &'static str,
        failure: Option<&'static str>,
    ) -> CallEvent<'a> {
        CallEvent {
            what,
            failure,
            since: None,
            user: &self.lease.address,
            peer,
            session: self.lease.session,
        }
    }
}
