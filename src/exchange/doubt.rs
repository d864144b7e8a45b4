//! Whether a session still answers, as one node asks another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::fabric::{Fabric, FabricError, Holder, Question, Topic, Verdict};
use crate::model::SessionId;

/// Asks a holder's node whether the session still answers.
pub(super) async fn ask(
    fabric: Arc<dyn Fabric>,
    holder: Holder,
    within: Duration,
) -> Result<Verdict, FabricError> {
    let body = holder.session.to_string().into();
    let asked = fabric.ask(&holder.node, Topic::Session, body, within);
    Ok(match asked.await?.as_deref() {
        Some(b"gone") => Verdict::Gone,
        Some(b"alive") => Verdict::Alive,
        Some(b"detached") => Verdict::Detached,
        _ => Verdict::Silent,
    })
}

/// Answers such a question. An answer that is lost is a holder that did not answer: the name stays taken, and the login is tried again.
pub(super) fn answer(fabric: &dyn Fabric, question: &Question, verdict: Verdict) {
    let word = match verdict {
        Verdict::Gone => "gone",
        Verdict::Alive => "alive",
        Verdict::Detached => "detached",
        Verdict::Silent => "silent",
    };
    fabric.answer(question, Bytes::from_static(word.as_bytes()));
}

/// Which session is doubted.
pub(super) fn session(question: &Question) -> Option<SessionId> {
    std::str::from_utf8(&question.body).ok()?.parse().ok()
}
