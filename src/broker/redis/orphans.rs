//! What is open on each node: its sessions and calls, as other nodes end them when it dies.

use std::collections::HashMap;
use std::time::SystemTime;

use redis::Value;

use super::reply::{array, unexpected};
use crate::broker::events::ORPHANED;
use crate::broker::{BrokerError, Orphan};
use crate::model::{Address, CallFact, CallNews, Fact, NodeId, SessionId, What};

/// The stored form of what is open: `GENERATION ADDRESS` of a session, and behind it `PEER BEGAN N LATEST LATEST` of a
/// call.
pub(super) struct Open;

impl Open {
    /// The field of a call.
    pub(super) fn field(session: SessionId, with: SessionId) -> String {
        format!("{session}:{with}")
    }

    /// The text of a fact, without the generation.
    pub(super) fn text(fact: &Fact) -> String {
        match &fact.what {
            What::Call(call) => {
                let (peer, began) = (fact.peer_address(call), u8::from(call.began));
                let (own, other) = call.latest;
                format!("{} {peer} {began} {} {own} {other}", fact.address, call.n)
            }
            _ => fact.address.to_string(),
        }
    }

    /// The end of what was open.
    fn read(field: &str, text: &str, at: SystemTime) -> Option<Fact> {
        let mut words = text.split(' ');
        let mut word = || words.next();
        let generation = word()?.parse().ok()?;
        let address = word()?.parse().ok()?;
        let (session, what) = match field.split_once(':') {
            None => (field, What::Ended(ORPHANED)),
            Some((session, with)) => {
                let peer: Address = word()?.parse().ok()?;
                let began = word()? == "1";
                let mut number = || word()?.parse().ok();
                let call = CallFact {
                    peer: peer.name,
                    with: with.parse().ok()?,
                    began,
                    n: number()?,
                    latest: (number()?, number()?),
                    what: CallNews::Ended(ORPHANED),
                };
                (session, What::Call(call))
            }
        };
        Some(Fact {
            session: session.parse().ok()?,
            generation,
            address,
            at,
            what,
        })
    }
}

/// The nodes of a set.
pub(super) fn nodes(value: Value) -> Result<Vec<NodeId>, BrokerError> {
    let (Value::Set(values) | Value::Array(values)) = value else {
        return Err(unexpected());
    };
    let node = |value| match value {
        Value::BulkString(text) => Some(NodeId::known(&String::from_utf8_lossy(&text))),
        _ => None,
    };
    Ok(values.into_iter().filter_map(node).collect())
}

/// The sessions that were open on a node, each with its calls.
pub(super) fn read(node: &NodeId, value: Value) -> Result<Vec<Orphan>, BrokerError> {
    let now = SystemTime::now();
    let words = match value {
        Value::Map(pairs) => pairs
            .into_iter()
            .flat_map(|(name, value)| [name, value])
            .collect(),
        value => array(value)?,
    };
    let mut texts = words.into_iter().map(|word| match word {
        Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
        _ => String::new(),
    });
    let (mut sessions, mut calls) = (Vec::new(), HashMap::<SessionId, Vec<Fact>>::new());
    while let (Some(field), Some(text)) = (texts.next(), texts.next()) {
        match Open::read(&field, &text, now) {
            Some(fact) if field.contains(':') => calls.entry(fact.session).or_default().push(fact),
            Some(fact) => sessions.push(fact),
            None => {}
        }
    }
    let orphan = |ended: Fact| Orphan {
        node: node.clone(),
        calls: calls.remove(&ended.session).unwrap_or_default(),
        ended,
    };
    Ok(sessions.into_iter().map(orphan).collect())
}
