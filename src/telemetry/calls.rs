//! Traces of calls: one trace from the offer to the clients' reports, across both nodes.
//!
//! Span kinds and attributes follow OpenTelemetry's messaging conventions. `publish offer` is a
//! producer span that lasts until the broker has answered. `process offer` is a consumer span,
//! child of the former and linked to it, that lasts until the signal is written to the connection.
//! The conventions put the destination into the span name; here the kind of signal is there
//! instead, because the destination template is always `user`. Sampling is decided once, at the
//! offer. Spans contain no body, address, token or secret.

use std::fmt;
use std::time::SystemTime;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample};
use sha2::{Digest as _, Sha256};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::export::Sampling;
use crate::model::{Address, SessionId, TraceContext};

/// The tracing target of these spans. They go to the collector, not to the log.
pub(super) const TARGET: &str = "switchboard::call";

/// How user names appear in spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNames {
    /// Unchanged.
    Plain,
    /// The first bytes of a hash, the same on every node.
    Hashed,
    /// Left out.
    Omit,
}

impl UserNames {
    fn shown(self, user: &Address) -> Option<String> {
        match self {
            Self::Plain => Some(user.to_string()),
            Self::Hashed => {
                let hash = Sha256::digest(format!("switchboard user {user}"));
                Some(hex::encode(&hash[..8]))
            }
            Self::Omit => None,
        }
    }
}

/// Creates the spans of a node's calls.
pub struct CallTracer {
    sampler: Box<dyn ShouldSample>,
    names: UserNames,
    /// The `messaging.system` attribute.
    system: &'static str,
}

impl fmt::Debug for CallTracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallTracer")
            .field("sampler", &self.sampler)
            .finish_non_exhaustive()
    }
}

/// A message, as its span describes it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its kind.
    pub kind: &'static str,
    /// Its sender.
    pub from: &'a Address,
    /// Its receiver.
    pub to: &'a Address,
    /// The session on this side.
    pub session: SessionId,
    /// Its number at the sender.
    pub n: u64,
    /// The size of its body.
    pub bytes: usize,
}

/// A span that ends when it is dropped.
#[derive(Debug)]
pub struct CallSpan(tracing::Span);

impl CallTracer {
    pub(super) fn new(sampling: Sampling, names: UserNames, system: &'static str) -> Self {
        Self {
            sampler: sampling.sampler(),
            names,
            system,
        }
    }

    /// Decides whether a new call is sampled, perhaps inside a trace of its client. `None` if it
    /// is; otherwise the context to propagate without recording spans.
    pub fn unsampled_context(&self, parent: Option<&TraceContext>) -> Option<TraceContext> {
        let trace = parent.map_or_else(rand::random, |parent| parent.trace);
        let context = parent.map(|parent| Context::new().with_remote_span_context(remote(parent)));
        let decision = self.sampler.should_sample(
            context.as_ref(),
            TraceId::from_bytes(trace),
            "publish offer",
            &SpanKind::Producer,
            &[],
            &[],
        );
        if decision.decision == SamplingDecision::RecordAndSample {
            return None;
        }
        Some(TraceContext {
            trace,
            span: parent.map_or_else(rand::random, |parent| parent.span),
            sampled: false,
        })
    }

    /// Starts the span of a message that is sent.
    pub fn publish(
        &self,
        parent: Option<&TraceContext>,
        link: Option<&TraceContext>,
        message: Message<'_>,
    ) -> CallSpan {
        let name = format!("publish {}", message.kind);
        let span = CallSpan::open(&name, "producer", parent, link);
        span.set("messaging.operation.type", "send");
        span.set("messaging.operation.name", "publish");
        self.describe(&span, message);
        span
    }

    /// Starts the span of a message that arrived.
    pub fn process(&self, from: &TraceContext, message: Message<'_>) -> CallSpan {
        let name = format!("process {}", message.kind);
        let span = CallSpan::open(&name, "consumer", Some(from), Some(from));
        span.set("messaging.operation.type", "process");
        span.set("messaging.operation.name", "process");
        self.describe(&span, message);
        span
    }

    /// Adds a short span for an event of the call. In an unsampled call only failures are recorded.
    pub fn mark(
        &self,
        call: &TraceContext,
        what: &'static str,
        failure: Option<&'static str>,
    ) -> Option<CallSpan> {
        if !call.sampled && failure.is_none() {
            return None;
        }
        let span = CallSpan::open(what, "internal", Some(call), None);
        if let Some(code) = failure {
            span.fail(code);
        }
        Some(span)
    }

    fn describe(&self, span: &CallSpan, message: Message<'_>) {
        span.set("messaging.system", self.system);
        span.set("messaging.destination.template", "user");
        if let Some(to) = self.names.shown(message.to) {
            span.set("messaging.destination.name", to);
        }
        if let Some(from) = self.names.shown(message.from) {
            span.set("switchboard.sender", from);
        }
        span.set("switchboard.signal", message.kind);
        span.set("session.id", message.session.to_string());
        span.set("messaging.message.id", message.n.to_string());
        span.set("messaging.message.body.size", signed(message.bytes));
    }
}

impl CallSpan {
    fn open(
        name: &str,
        kind: &'static str,
        parent: Option<&TraceContext>,
        link: Option<&TraceContext>,
    ) -> Self {
        let span =
            info_span!(target: TARGET, parent: None, "call", otel.name = name, otel.kind = kind);
        if let Some(parent) = parent {
            // Fails only without a collector.
            let _ = span.set_parent(Context::new().with_remote_span_context(remote(parent)));
        }
        if let Some(link) = link {
            span.add_link(remote(link));
        }
        Self(span)
    }

    /// The context for child spans.
    pub fn context(&self) -> TraceContext {
        let context = self.0.context();
        let span = context.span();
        let span = span.span_context();
        TraceContext {
            trace: span.trace_id().to_bytes(),
            span: span.span_id().to_bytes(),
            sampled: span.is_sampled(),
        }
    }

    /// Sets an attribute.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(key, value.into());
    }

    /// Adds an event.
    pub fn event(&self, name: &'static str) {
        self.0.add_event(name, Vec::new());
    }

    /// Marks the span as failed with this error code.
    pub fn fail(&self, code: &'static str) {
        self.set("error.type", code);
        self.0.set_status(Status::error(code));
    }

    /// Ends the span at this time, or now.
    pub fn end(self, at: Option<SystemTime>) {
        if let Some(at) = at {
            self.0.context().span().end_with_timestamp(at);
        }
    }
}

/// A number as an attribute value; too large ones become `i64::MAX`.
pub fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn remote(context: &TraceContext) -> SpanContext {
    let flags = if context.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    SpanContext::new(
        TraceId::from_bytes(context.trace),
        SpanId::from_bytes(context.span),
        flags,
        true,
        TraceState::default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Realm, UserName};

    fn tracer(ratio: f64, parent_decides: bool) -> CallTracer {
        let sampling = Sampling {
            ratio,
            parent_decides,
        };
        CallTracer::new(sampling, UserNames::Hashed, "memory")
    }

    #[test]
    fn the_sampler_or_the_client_decides() {
        let client = |sampled| TraceContext {
            trace: [7; 16],
            span: [8; 8],
            sampled,
        };
        assert_eq!(tracer(1.0, true).unsampled_context(None), None);
        let left_out = tracer(0.0, true).unsampled_context(None).unwrap();
        assert!(!left_out.sampled && left_out.trace != [0; 16]);
        assert_eq!(
            tracer(0.0, true).unsampled_context(Some(&client(true))),
            None
        );
        assert_eq!(
            tracer(1.0, true).unsampled_context(Some(&client(false))),
            Some(client(false))
        );
        assert_eq!(
            tracer(1.0, false).unsampled_context(Some(&client(false))),
            None
        );
        let some = tracer(0.25, true);
        let traced = (0..4000)
            .filter(|_| some.unsampled_context(None).is_none())
            .count();
        assert!((700..1300).contains(&traced), "{traced} of 4000");
    }

    #[test]
    fn user_names_appear_as_configured() {
        let user = Address::new(Realm::default(), UserName::parse("UserA").unwrap());
        assert_eq!(UserNames::Plain.shown(&user).unwrap(), "/UserA");
        assert_eq!(UserNames::Omit.shown(&user), None);
        let hashed = UserNames::Hashed.shown(&user).unwrap();
        assert!(hashed.len() == 16 && !hashed.contains("UserA"), "{hashed}");
    }
}
