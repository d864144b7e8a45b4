//! Reports of clients about their connections to call peers.

use tracing::info;

use super::State;
use super::call::CallTrace;
use crate::model::{
    AckStatus, CallNews, Correlation, Event, PairKind, PeerState, Report, UserName,
};
use crate::telemetry::{CallEvent, signed};

impl State {
    /// Handles a report. Ignored without a call, and counted once for each state of a call set-up.
    pub(super) fn report(&mut self, with: &UserName, report: Report, id: Option<Correlation>) {
        if self.calls.reports(with, report.state) {
            self.node.telemetry.metrics.reported(report);
            self.trace_report(with, report);
            if let (PeerState::Connected, Some(pair)) = (report.state, report.pair) {
                self.call_happens(with, CallNews::Connected(pair));
            }
        }
        if let Some(id) = id {
            let status = AckStatus::Delivered;
            self.tell_in_order(Event::Ack { id, status });
        }
    }

    fn trace_report(&mut self, with: &UserName, report: Report) {
        let (Some(tracer), Some(call)) = (&self.node.telemetry.calls, self.calls.trace(with))
        else {
            return;
        };
        // The set-up of a call is a span from the offer to the report, so that slow calls can be found by its length.
        let (what, failure, since) = match report.state {
            PeerState::Connected => ("connected", None, call.begun),
            PeerState::Failed => ("failed", Some("connection_failed"), call.begun),
            PeerState::Disconnected => ("disconnected", None, None),
        };
        let since = since.filter(|_| !call.ended);
        let peer = self.address_of(with);
        let event = self.call_event(&peer, what, failure);
        if let Some(mut span) = tracer.mark(&call.context, CallEvent { since, ..event }) {
            span.set("switchboard.report.state", report.state.as_str());
            if let Some(after) = report.after {
                span.set("switchboard.report.ms", signed(after.as_millis()));
            }
            if let Some(pair) = report.pair {
                span.set("switchboard.report.pair", PairKind::as_str(pair));
            }
        }
        let repeats = &self.node.telemetry.repeats;
        if failure.is_some() && repeats.is_first("a client could not connect to its call peer") {
            info!(trace_id = call.context.trace_id(), session.id = %self.lease.session,
                  "A client could not connect to its call peer");
        }
        let ended = call.ended || report.state != PeerState::Disconnected;
        self.calls.set_trace(with, CallTrace { ended, ..call });
    }
}
