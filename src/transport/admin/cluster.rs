//! Asks the nodes of the cluster, and collects their answers.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{StreamExt as _, stream};

use super::super::node_view::NodeView;
use super::super::reject::Rejection;
use super::wire::{self, Ask, Call, Calls, Node, Nodes, Peer, Reply, User, Users};
use crate::broker::{self, BrokerError, Holder, Questions, Topic};
use crate::model::{Address, NodeId, SessionId};

/// Time limit for the answer of a node.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// How many nodes are asked at once, and how many questions of others are answered at once.
const AT_ONCE: usize = 16;
/// The most entries of one answer.
const MOST: usize = 501;
/// How often a session is looked for that moves meanwhile.
const TRIES: usize = 3;

/// What a page is made of.
trait Item {
    /// Its place among those of its node.
    fn place(&self) -> String;
}

impl Item for User {
    fn place(&self) -> String {
        let realm = crate::model::Realm::new(&self.realm);
        match crate::model::UserName::known(&self.name) {
            Ok(name) => Address::new(realm, name).to_string(),
            Err(_) => String::new(),
        }
    }
}

impl Item for Call {
    fn place(&self) -> String {
        format!("{} {}", self.sessions.0, self.sessions.1)
    }
}

/// Where a page begins: a node, and a place behind which the node goes on.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    node: String,
    after: Option<String>,
}

impl Cursor {
    /// Any text is some place, so that none can be wrong.
    pub(super) fn read(text: &str) -> Self {
        let text = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let (node, after) = text.split_once(' ').unwrap_or((&text, ""));
        Self {
            node: node.to_owned(),
            after: Some(after.to_owned()).filter(|after| !after.is_empty()),
        }
    }
}

/// One page, collected from the nodes in their order.
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
    unanswered: Vec<String>,
}

impl NodeView {
    /// A page of the users of the cluster.
    pub(super) async fn users(&self, from: Cursor, most: usize) -> Result<Users, Rejection> {
        let take = |reply| match reply {
            Some(Reply::Users(users)) => Some(users),
            _ => None,
        };
        let page = self.page(from, most, Ask::Users, take).await?;
        Ok(Users {
            page: page.items,
            next: page.next,
            unanswered: page.unanswered,
        })
    }

    /// A page of the calls of the cluster.
    pub(super) async fn calls(&self, from: Cursor, most: usize) -> Result<Calls, Rejection> {
        let ask = |after: Option<String>, most| {
            let after = after.and_then(|after| {
                let (one, other) = after.split_once(' ')?;
                Some((one.to_owned(), other.to_owned()))
            });
            Ask::Calls(after, most)
        };
        let take = |reply| match reply {
            Some(Reply::Calls(calls)) => Some(calls),
            _ => None,
        };
        let page = self.page(from, most, ask, take).await?;
        Ok(Calls {
            page: page.items,
            next: page.next,
            unanswered: page.unanswered,
        })
    }

    async fn page<T: Item>(
        &self,
        mut from: Cursor,
        most: usize,
        ask: impl Fn(Option<String>, usize) -> Ask,
        take: impl Fn(Option<Reply>) -> Option<Vec<T>>,
    ) -> Result<Page<T>, Rejection> {
        let mut page = Page {
            items: Vec::new(),
            next: None,
            unanswered: Vec::new(),
        };
        for node in self.members().await? {
            if node.as_str() < from.node.as_str() {
                continue;
            }
            let is_same = node.as_str() == from.node;
            let after = from.after.take().filter(|_| is_same);
            let left = most - page.items.len();
            // One more than is left shows whether there is another page.
            let reply = self.ask(&node, ask(after, left + 1)).await;
            let Some(mut items) = take(reply) else {
                page.unanswered.push(node.to_string());
                continue;
            };
            let is_more = items.len() > left;
            items.truncate(left);
            page.items.extend(items);
            if is_more {
                // A node of which nothing had room begins the next page.
                let last = page.items.last().filter(|_| left > 0);
                let place = last.map(Item::place).unwrap_or_default();
                page.next = Some(BASE64_URL_SAFE_NO_PAD.encode(format!("{node} {place}")));
                break;
            }
        }
        Ok(page)
    }

    /// How this node is.
    fn node(&self) -> Node {
        let (health, draining) = (self.router().health(), self.is_draining());
        Node {
            id: self.router().node().to_string(),
            answered: true,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            uptime_seconds: Some(self.uptime().as_secs()),
            ready: Some(health.ready && !draining),
            draining: Some(draining),
            sessions: Some(health.sessions as u64),
            calls: Some(health.calls),
        }
    }

    /// Every node of the cluster.
    pub(super) async fn nodes(&self) -> Result<Nodes, Rejection> {
        let members = self.members().await?;
        let asked =
            stream::iter(members).map(async |node| match self.ask(&node, Ask::Node).await {
                Some(Reply::Node(node)) => node,
                _ => Node {
                    id: node.to_string(),
                    ..Node::default()
                },
            });
        let nodes = asked.buffered(AT_ONCE).collect().await;
        Ok(Nodes { nodes })
    }

    /// The user of this address. A node that does not answer leaves what the lease tells.
    pub(super) async fn user_of(&self, address: &Address) -> Result<User, Rejection> {
        let mut user = None;
        for _ in 0..TRIES {
            let holder = self.holder(address).await?;
            let asked = self
                .ask(&holder.node, Ask::User(holder.session.to_string()))
                .await;
            match asked {
                Some(Reply::User(Some(user))) => return Ok(user),
                // It moves, or ends.
                Some(Reply::User(None)) => {}
                _ => return Ok(User::held(address, &holder)),
            }
            user = Some(User::held(address, &holder));
        }
        user.ok_or(Rejection::NoUser)
    }

    /// Ends the session of this address, connected or parked. Returns its id.
    pub(super) async fn kick(&self, address: &Address) -> Result<SessionId, Rejection> {
        for _ in 0..TRIES {
            let holder = self.holder(address).await?;
            let ask = Ask::Kick(holder.session.to_string());
            if let Some(Reply::Kicked(true)) = self.ask(&holder.node, ask).await {
                return Ok(holder.session);
            }
            let alive = self
                .broker()
                .nodes(std::slice::from_ref(&holder.node))
                .await?
                .alive;
            if alive == [false] {
                // Nobody else could end it: its node is dead, and its client may come back elsewhere.
                self.router().forget(address, &holder).await?;
                return Ok(holder.session);
            }
        }
        Err(Rejection::Unavailable)
    }

    async fn holder(&self, address: &Address) -> Result<Holder, Rejection> {
        let holders = self.broker().holders(std::slice::from_ref(address)).await?;
        holders
            .into_iter()
            .flatten()
            .next()
            .ok_or(Rejection::NoUser)
    }

    pub(super) async fn members(&self) -> Result<Vec<NodeId>, Rejection> {
        let mut members = self.broker().members().await?;
        members.sort_unstable();
        Ok(members)
    }

    /// `None` if the node does not answer in time, or does not know the question.
    pub(super) async fn ask(&self, node: &NodeId, ask: Ask) -> Option<Reply> {
        if node == self.router().node() {
            return Some(self.answer(ask));
        }
        let question = wire::write(&ask);
        let asking = self
            .broker()
            .ask(node, Topic::Admin, question, ANSWER_WITHIN);
        wire::read(&asking.await.ok()??)
    }

    /// Service: answers the questions of other nodes.
    pub async fn answer_all(self, mut questions: Questions) {
        let questions = stream::poll_fn(|context| questions.poll_recv(context));
        let answer = async |question: broker::Question| {
            if let Some(ask) = wire::read(&question.body) {
                let reply = wire::write(&self.answer(ask));
                self.broker().answer(&question, reply);
            }
        };
        questions.for_each_concurrent(AT_ONCE, answer).await;
    }

    /// What this node knows.
    fn answer(&self, ask: Ask) -> Reply {
        let (router, node) = (self.router(), self.router().node().as_str());
        match ask {
            Ask::Node => Reply::Node(self.node()),
            Ask::Users(after, most) => {
                let most = most.min(MOST);
                let after = after.and_then(|after| after.parse().ok());
                let users = router.users(after.as_ref(), most);
                Reply::Users(users.iter().map(|user| User::of(user, node)).collect())
            }
            Ask::User(session) => {
                let found = session
                    .parse()
                    .ok()
                    .and_then(|session| router.user(session));
                Reply::User(found.map(|(user, calls)| User {
                    peers: Some(calls.iter().map(Peer::of).collect()),
                    ..User::of(&user, node)
                }))
            }
            Ask::Calls(after, most) => {
                let after =
                    after.and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
                let calls = router.calls(after, most.min(MOST));
                Reply::Calls(calls.iter().map(|call| Call::of(call, node)).collect())
            }
            Ask::Kick(session) => {
                let session = session.parse();
                Reply::Kicked(session.is_ok_and(|session| router.kick(session)))
            }
            Ask::Revoke(revoked) => Reply::Revoked(router.revoke(&[revoked.revocation()])),
        }
    }

    pub(super) fn broker(&self) -> &Arc<dyn broker::Broker> {
        self.router().broker()
    }
}

impl From<BrokerError> for Rejection {
    fn from(_: BrokerError) -> Self {
        Self::Unavailable
    }
}
