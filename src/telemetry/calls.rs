//! Traces of calls: one trace from the offer to the clients' reports, across both nodes.
//!
//! Span kinds and attributes follow OpenTelemetry's messaging conventions. `publish offer` is a
//! producer span that lasts until the broker has answered. `process offer` is a consumer span,
//! child of the former and linked to it, that lasts until the signal is written to the connection.
//! The conventions put the destination into the span name; here the kind of signal is there
//! instead, because the destination template is always `user`. Sampling is decided once, at the
//! offer; of an unsampled call only failures are recorded. Spans contain no body, address, token or secret.

use std::fmt;
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SamplingDecision, SdkTracer, ShouldSample, Span};
use sha2::{Digest as _, Sha256};

use super::Settings;
use crate::model::{Address, NodeId, SessionId, TraceContext};

/// False on a span whose call is not sampled. Its parent was not recorded, so the span is exported without one.
pub(super) const SAMPLED: &str = "switchboard.sampled";

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
    tracer: SdkTracer,
    sampler: Box<dyn ShouldSample>,
    names: UserNames,
    /// The `messaging.client.id` attribute.
    node: NodeId,
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

/// An event of a call, as its span describes it.
#[derive(Clone, Copy, Debug)]
pub struct CallEvent<'a> {
    /// What happened.
    pub what: &'static str,
    /// The code of the failure, if it is one.
    pub failure: Option<&'static str>,
    /// When it began, if not now.
    pub since: Option<SystemTime>,
    /// The user on this side.
    pub user: &'a Address,
    /// The user on the other side.
    pub peer: &'a Address,
    /// The session on this side.
    pub session: SessionId,
}

/// A span that ends when it is dropped.
#[derive(Debug)]
pub struct CallSpan {
    span: Box<Span>,
    started: SystemTime,
}

impl CallTracer {
    pub(super) fn new(tracer: SdkTracer, settings: &Settings, node: NodeId) -> Self {
        Self {
            tracer,
            sampler: settings.sampling.sampler(),
            names: settings.user_names,
            node,
            system: settings.system,
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
        let mut span = self.open(name, SpanKind::Producer, parent, link, None);
        span.set("messaging.operation.type", "send");
        span.set("messaging.operation.name", "publish");
        self.describe(&mut span, message);
        span
    }

    /// Starts the span of a message that arrived.
    pub fn process(&self, from: &TraceContext, message: Message<'_>) -> CallSpan {
        let name = format!("process {}", message.kind);
        let mut span = self.open(name, SpanKind::Consumer, Some(from), Some(from), None);
        span.set("messaging.operation.type", "process");
        span.set("messaging.operation.name", "process");
        self.describe(&mut span, message);
        span
    }

    /// Adds a span for an event of the call, which ends now. In an unsampled call only failures are recorded.
    pub fn mark(&self, call: &TraceContext, event: CallEvent<'_>) -> Option<CallSpan> {
        if !call.sampled && event.failure.is_none() {
            return None;
        }
        let mut span = self.open(
            event.what.to_owned(),
            SpanKind::Internal,
            Some(call),
            None,
            event.since,
        );
        if !call.sampled {
            span.set(SAMPLED, false);
        }
        span.set("session.id", event.session.to_string());
        span.set("messaging.client.id", self.node.as_str().to_owned());
        if let Some(user) = self.names.shown(event.user) {
            span.set("switchboard.user", user);
        }
        if let Some(peer) = self.names.shown(event.peer) {
            span.set("switchboard.peer", peer);
        }
        if let Some(code) = event.failure {
            span.fail(code);
        }
        Some(span)
    }

    fn open(
        &self,
        name: String,
        kind: SpanKind,
        parent: Option<&TraceContext>,
        link: Option<&TraceContext>,
        since: Option<SystemTime>,
    ) -> CallSpan {
        let started = since.unwrap_or_else(SystemTime::now);
        let mut builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_start_time(started);
        builder.links = link.map(|link| vec![Link::with_context(remote(link))]);
        let context = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(remote(parent))
        });
        let span = Box::new(self.tracer.build_with_context(builder, &context));
        CallSpan { span, started }
    }

    fn describe(&self, span: &mut CallSpan, message: Message<'_>) {
        span.set("messaging.system", self.system);
        span.set("messaging.client.id", self.node.as_str().to_owned());
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
    /// The context for child spans.
    pub fn context(&self) -> TraceContext {
        let context = self.span.span_context();
        TraceContext {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            sampled: context.is_sampled(),
        }
    }

    /// When it started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(key, value.into()));
    }

    /// Adds an event.
    pub fn event(&mut self, name: &'static str) {
        self.span.add_event(name, Vec::new());
    }

    /// Marks the span as failed with this error code.
    pub fn fail(&mut self, code: &'static str) {
        self.set("error.type", code);
        self.span.set_status(Status::error(code));
    }

    /// Ends the span at this time, or now.
    pub fn end(mut self, at: Option<SystemTime>) {
        if let Some(at) = at {
            self.span.end_with_timestamp(at);
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
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::model::{Realm, UserName};
    use crate::telemetry::Sampling;

    fn tracer(ratio: f64, parent_decides: bool) -> CallTracer {
        let sampling = Sampling {
            ratio,
            parent_decides,
        };
        let provider = SdkTracerProvider::builder().build();
        CallTracer {
            tracer: provider.tracer("test"),
            sampler: sampling.sampler(),
            names: UserNames::Hashed,
            node: NodeId::known("node"),
            system: "memory",
        }
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
