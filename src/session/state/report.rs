//! Reports of clients about their connections to call peers.

use tracing::info;

use super::State;
use super::call::CallTrace;
use crate::model::{AckStatus, Correlation, Event, PairKind, PeerState, Report, UserName};
use crate::telemetry::signed;

impl State {
    /// Handles a report. Ignored without a call, and counted once for each state of a call set-up.
    pub(super) fn report(&mut self, with: &UserName, report: Report, id: Option<Correlation>) {
        if self.calls.reports(with, report.state) {
            self.node.telemetry.metrics.reported(report);
            self.trace_report(with, report);
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
        let (what, failure) = match report.state {
            PeerState::Connected => ("connected", None),
            PeerState::Failed => ("failed", Some("connection_failed")),
            PeerState::Disconnected => ("disconnected", None),
        };
        if let Some(span) = tracer.mark(&call.context, what, failure) {
            span.set("session.id", self.lease.session.to_string());
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
