//! What operators see of this node's sessions, and what they may do to them.

use std::sync::Arc;
use std::time::SystemTime;

use super::Router;
use super::mailbox::Mail;
use crate::broker::{
    BrokerError, Envelope, Holder, Lease, Payload, Receipts, SendOptions, Sender, Sent,
};
use crate::model::{Address, Claims, CloseReason, NodeId, Offset, SessionId, Signal, UserName};
use crate::telemetry::Transport;

/// How the client of a session is connected, and what its token says.
#[derive(Clone, Debug)]
pub struct Client {
    /// The transport.
    pub transport: Transport,
    /// The name of the protocol.
    pub protocol: &'static str,
    /// When the session began.
    pub since: SystemTime,
    /// What its token says, if it has one.
    pub claims: Option<Arc<Claims>>,
}

/// A session of this node.
#[derive(Clone, Debug)]
pub struct UserView {
    /// The session's lease.
    pub lease: Lease,
    /// How its client is, or was, connected.
    pub client: Client,
    /// How many calls it has.
    pub calls: usize,
}

/// A call, as the node of one side knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallView {
    /// The sessions of both sides. The lesser one is on this node.
    pub sessions: (SessionId, SessionId),
    /// The user of the first session.
    pub user: Address,
    /// The user of the second one, in the same realm.
    pub peer: UserName,
    /// When the call began, or came to this node.
    pub since: SystemTime,
}

impl Router {
    /// Records how the client of a session is connected, which completes its login for operators, or that it has a new
    /// token.
    pub fn describe(&self, lease: &Lease, client: Client) {
        self.registry.describe(lease, client);
    }

    /// At most `most` sessions of this node behind an address, in the order of their addresses.
    pub fn users(&self, after: Option<&Address>, most: usize) -> Vec<UserView> {
        let mut users = Vec::new();
        self.registry.each(|lease, client| {
            if after.is_none_or(|after| lease.address > *after) {
                users.push((lease.clone(), client.clone()));
            }
        });
        users.sort_unstable_by(|(one, _), (other, _)| one.address.cmp(&other.address));
        users.truncate(most);
        let view = |(lease, client): (Lease, Client)| UserView {
            calls: self.local.peers.sides_of((lease.session, lease.generation)),
            lease,
            client,
        };
        users.into_iter().map(view).collect()
    }

    /// A session of this node, and its calls.
    pub fn user(&self, session: SessionId) -> Option<(UserView, Vec<(UserName, SystemTime)>)> {
        let (lease, client) = self.registry.described(session)?;
        let mut calls = self.local.peers.peers_of((session, lease.generation));
        calls.sort_unstable();
        let user = UserView {
            calls: calls.len(),
            lease,
            client,
        };
        Some((user, calls))
    }

    /// At most `most` calls behind one, in the order of their sessions. Each call of the cluster is listed by one node:
    /// that of the session with the lesser id. A call whose peer is not known yet is not listed.
    pub fn calls(&self, after: Option<(SessionId, SessionId)>, most: usize) -> Vec<CallView> {
        let mut sides = Vec::new();
        self.local.peers.each_side(|owner, peer, side| {
            let sessions = side.peer.map(|peer| (owner, peer));
            let sessions = sessions.filter(|sessions| sessions.0 < sessions.1);
            if let Some(sessions) =
                sessions.filter(|sessions| after.is_none_or(|after| *sessions > after))
            {
                sides.push((sessions, peer.clone(), side.since));
            }
        });
        sides.sort_unstable();
        sides.dedup_by(|one, other| one.0 == other.0);
        sides.truncate(most);
        let view = |(sessions, peer, since): ((SessionId, SessionId), UserName, SystemTime)| {
            let user = self.registry.described(sessions.0)?.0.address;
            Some(CallView {
                sessions,
                user,
                peer,
                since,
            })
        };
        sides.into_iter().filter_map(view).collect()
    }

    /// Ends a session of this node. False if it is not here.
    pub fn kick(&self, session: SessionId) -> bool {
        self.registry
            .post(session, Mail::Ended(CloseReason::Kicked))
    }

    /// Ends a session whose node does not answer: it cannot be resumed any more.
    pub async fn forget(&self, address: &Address, holder: &Holder) -> Result<(), BrokerError> {
        let released = self.broker.release(address, holder, Offset::default());
        released.await.map(drop)
    }

    /// Sends a user a signal from somebody who has no session, under this name.
    pub async fn tell(
        &self,
        to: &Address,
        from: UserName,
        signal: Signal,
    ) -> Result<Sent, BrokerError> {
        let from = Address::new(to.realm.clone(), from);
        let node: NodeId = self.local.id.clone();
        let envelope = Envelope {
            from: Arc::new(Sender::new(from, SessionId::random(), 0, node)),
            n: 1,
            idempotency_key: None,
            trace: None,
            payload: Payload::Signal(signal),
        };
        let receipts = Receipts::default();
        let receipt = receipts.issue(false, false);
        let options = SendOptions {
            in_call: true,
            ..SendOptions::default()
        };
        self.route(to, options, envelope, receipt);
        receipts.ready(true).await;
        match receipts.take() {
            Some(answer) => answer.outcome,
            None => Err(BrokerError::TimedOut),
        }
    }
}
