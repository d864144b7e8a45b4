//! Whether a session still answers, as one node asks another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{Broker, BrokerError, Holder, Question, Topic, Verdict};
use crate::model::SessionId;

/// Asks a holder's node whether the session still answers.
pub(super) async fn ask(
    broker: Arc<dyn Broker>,
    holder: Holder,
    within: Duration,
) -> Result<Verdict, BrokerError> {
    let body = holder.session.to_string().into();
    let asked = broker.ask(&holder.node, Topic::Session, body, within);
    Ok(match asked.await?.as_deref() {
        Some(b"gone") => Verdict::Gone,
        Some(b"alive") => Verdict::Alive,
        Some(b"detached") => Verdict::Detached,
        _ => Verdict::Silent,
    })
}

/// Answers such a question. An answer that is lost is a holder that did not answer: the name stays taken, and the login is tried again.
pub(super) fn answer(broker: &dyn Broker, question: &Question, verdict: Verdict) {
    let word = match verdict {
        Verdict::Gone => "gone",
        Verdict::Alive => "alive",
        Verdict::Detached => "detached",
        Verdict::Silent => "silent",
    };
    broker.answer(question, Bytes::from_static(word.as_bytes()));
}

/// Which session is doubted.
pub(super) fn session(question: &Question) -> Option<SessionId> {
    std::str::from_utf8(&question.body).ok()?.parse().ok()
}
