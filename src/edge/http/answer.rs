//! Answers what a home is asked, by its own node or by another.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::denied::Denied;
use super::home::Home;
use super::node::Node;
use super::wire::{self, Reply, Request};
use crate::fabric::{self, Questions};
use crate::model::{NodeId, SecretHash};

/// How long a question of another node is dealt with, before that node is told to ask again.
pub(super) const SLICE: Duration = Duration::from_millis(1500);
/// How many questions are dealt with at once.
const AT_ONCE: usize = 1024;

/// Service: answers what other nodes ask.
pub(super) async fn answer_all(node: Arc<Node>, mut questions: Questions) {
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            question = questions.recv(), if answering.len() < AT_ONCE => match question {
                Some(question) => answering.push(answer(&node, question)),
                None => return,
            },
            Some(()) = answering.next() => {}
        }
    }
}

/// Does at a home what is asked.
pub(super) async fn serve(
    home: &Home,
    request: Request,
    asker: &NodeId,
    within: Duration,
) -> Reply {
    let served = match request {
        Request::Post(messages, key) => home.post(messages, &key, within).await.map(Reply::Posted),
        Request::Poll(reader, after, wait) => {
            let reader = home.reader(reader);
            let unread = home.read(reader, after, wait.min(within)).await;
            unread.map(|unread| Reply::Unread(reader, unread))
        }
        Request::Take => {
            let handover = home.hand_over(asker, within).await;
            handover.map(|handover| Reply::Handover(Box::new(handover)))
        }
    };
    match (served, home.moved_to()) {
        (Ok(reply), _) => reply,
        (Err(Denied::Elsewhere), Some(node)) => Reply::Moved(node.to_string()),
        (Err(denied), _) => Reply::Denied(denied),
    }
}

async fn answer(node: &Node, question: fabric::Question) {
    if let Some(reply) = reply(node, &question).await {
        node.fabric.answer(&question, wire::write(&reply));
    }
}

/// `None` for what is no question that this node understands.
async fn reply(node: &Node, question: &fabric::Question) -> Option<Reply> {
    let asked: wire::Question = wire::read(&question.body)?;
    let proof = SecretHash::known(&asked.proof);
    Some(match node.home(asked.session.parse().ok()?) {
        None => Reply::Denied(Denied::Elsewhere),
        Some(home) if !home.is_proved_by(&proof) => Reply::Denied(Denied::Wrong),
        Some(home) => serve(&home, asked.request, &question.asker, SLICE).await,
    })
}
