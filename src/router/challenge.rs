//! Challenges: one node asks another whether a session that holds a wanted name is still alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::Router;
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

/// Answers a challenge. If the answer is lost, the asking node sees a silent holder: the name stays taken, and the
/// client tries again.
pub(super) fn answer(broker: &dyn Broker, question: &Question, verdict: Verdict) {
    let word = match verdict {
        Verdict::Gone => "gone",
        Verdict::Alive => "alive",
        Verdict::Detached => "detached",
        Verdict::Silent => "silent",
    };
    broker.answer(question, Bytes::from_static(word.as_bytes()));
}

/// The session that a challenge is about.
pub(super) fn session(question: &Question) -> Option<SessionId> {
    std::str::from_utf8(&question.body).ok()?.parse().ok()
}

/// The challenges that this node is waiting for. Concurrent logins to one name share one challenge.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    open: Mutex<HashMap<SessionId, Asked>>,
}

type Asked = Shared<BoxFuture<'static, Result<Verdict, BrokerError>>>;

impl Challenges {
    pub(super) async fn ask(
        &self,
        router: &Router,
        holder: &Holder,
    ) -> Result<Verdict, BrokerError> {
        let question = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.entry(holder.session)
                .or_insert_with(|| {
                    let broker = Arc::clone(&router.broker);
                    let within = router.local.terms.challenge;
                    ask(broker, holder.clone(), within).boxed().shared()
                })
                .clone()
        };
        let verdict = question.await;
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&holder.session);
        verdict
    }
}
