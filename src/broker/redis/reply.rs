//! The replies of Redis and of our scripts: how to read them.

use std::time::Duration;

use hashbrown::HashMap;
use redis::Value;

use crate::broker::{
    BrokerError, Claim, Confirmed, Entry, Envelope, Holder, Lease, Outcome, Renewal, Resume,
    Resumed, Sent,
};
use crate::bugs::{self, Bug};
use crate::model::{Address, Offset};

/// Stream entries as XRANGE returns them. Skips those that this release cannot decode.
pub(super) fn entries(value: Value) -> Result<Vec<Entry>, BrokerError> {
    let Value::Array(rows) = value else {
        return Err(unexpected());
    };
    Ok(rows.into_iter().filter_map(entry).collect())
}

fn entry(row: Value) -> Option<Entry> {
    let Value::Array(row) = row else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = <[Value; 2]>::try_from(row).ok()? else {
        return None;
    };
    let id: Offset = std::str::from_utf8(&id).ok()?.parse().ok()?;
    let Value::BulkString(bytes) = fields.into_iter().nth(1)? else {
        return None;
    };
    Some(Entry {
        id,
        envelope: Envelope::decode(&bytes.into()).ok()?,
    })
}

/// The reply of `claim.lua`.
pub(super) fn claim(value: Value) -> Result<Claim, BrokerError> {
    match value {
        Value::Nil => Ok(Claim::Won),
        Value::BulkString(lease) => holder(&lease).map(Claim::Held),
        Value::Int(left) => {
            let left = u64::try_from(left).map_err(|_| unexpected())?;
            Ok(Claim::Reserved(Duration::from_millis(left)))
        }
        _ => Err(unexpected()),
    }
}

/// The reply of `resume.lua`, with the holder before the resume.
pub(super) fn resume(
    address: &Address,
    value: Value,
) -> Result<(Resume, Option<Holder>), BrokerError> {
    let words = match value {
        Value::BulkString(word) if word == b"wrong" => return Ok((Resume::Wrong, None)),
        Value::BulkString(word) if word == b"later" => return Ok((Resume::Later, None)),
        Value::BulkString(_) => return Ok((Resume::Gone, None)),
        Value::Array(words) => words,
        _ => return Err(unexpected()),
    };
    let mut words = words.into_iter();
    let mut text = || match words.next() {
        Some(Value::BulkString(text)) => String::from_utf8(text).map_err(|_| unexpected()),
        Some(Value::Int(number)) => Ok(number.to_string()),
        _ => Err(unexpected()),
    };
    let (ours, before) = (holder(text()?.as_bytes())?, holder(text()?.as_bytes())?);
    let mut id = || text()?.parse().map_err(|_| unexpected());
    let confirmed = Confirmed {
        all: id()?,
        told: id()?,
    };
    let missed = text()? != "0";
    let mut fields = Vec::new();
    while let Ok(field) = text() {
        fields.push((field, text()?));
    }
    let resumed = Resumed {
        lease: Lease {
            address: address.clone(),
            session: ours.session,
            generation: ours.generation,
            callable_by: ours.callable_by,
            flags: ours.flags,
        },
        confirmed,
        fields,
        missed,
    };
    Ok((Resume::Won(Box::new(resumed)), Some(before)))
}

/// Recently parsed holders: most signals go to a receiver of an earlier one.
#[derive(Debug, Default)]
pub(super) struct HolderCache {
    by_text: HashMap<Vec<u8>, Holder>,
}

impl HolderCache {
    /// The cache is cleared when it holds so many.
    const CAPACITY: usize = 4096;

    /// The outcomes of the `count` envelopes to one name, from the reply of `send.lua`.
    pub(super) fn outcomes(&mut self, result: Value, count: usize) -> Vec<Outcome> {
        let (lease, codes) = match result {
            Value::Nil => return vec![Ok(Sent::Absent); count],
            Value::BulkString(lease) => (lease, None),
            Value::Array(words) => {
                let mut words = words.into_iter();
                let Some(Value::BulkString(lease)) = words.next() else {
                    return vec![Err(unexpected()); count];
                };
                if lease.is_empty() {
                    // Nobody holds the name.
                    let is_told = |code| code == Value::BulkString(b"a".to_vec());
                    let absent = |code| {
                        if is_told(code) {
                            Sent::Absent
                        } else {
                            Sent::NotCallable
                        }
                    };
                    return words.map(absent).map(Ok).collect();
                }
                (lease, Some(words))
            }
            _ => return vec![Err(unexpected()); count],
        };
        let holder = match self.find(&lease) {
            Ok(holder) => holder,
            Err(error) => return vec![Err(error); count],
        };
        match codes {
            None => vec![Ok(Sent::To(holder)); count],
            Some(codes) => codes.map(|code| outcome(&holder, &code)).collect(),
        }
    }

    pub(super) fn find(&mut self, lease: &[u8]) -> Result<Holder, BrokerError> {
        if let Some(known) = self.by_text.get(lease) {
            return Ok(known.clone());
        }
        let holder = holder(lease)?;
        if self.by_text.len() >= Self::CAPACITY {
            self.by_text.clear();
        }
        self.by_text.insert(lease.to_vec(), holder.clone());
        Ok(holder)
    }
}

/// The reply of SCAN: the next cursor, and the keys that were found.
pub(super) fn scanned(value: Value) -> Result<(String, Vec<String>), BrokerError> {
    let text = |value| match value {
        Value::BulkString(text) => String::from_utf8(text).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    };
    let Value::Array(step) = value else {
        return Err(unexpected());
    };
    let [next, Value::Array(keys)] = <[Value; 2]>::try_from(step).map_err(|_| unexpected())? else {
        return Err(unexpected());
    };
    let keys = keys.into_iter().map(text).collect::<Result<_, _>>();
    Ok((text(next)?, keys?))
}

fn outcome(holder: &Holder, code: &Value) -> Outcome {
    let Value::BulkString(code) = code else {
        return Err(unexpected());
    };
    let holder = holder.clone();
    match &code[..] {
        b"d" => Ok(Sent::To(holder)),
        b"f" => Ok(Sent::Full(holder)),
        b"n" => Ok(Sent::NotCallable),
        b"u" if bugs::has(Bug::PublishCountsTheFrozen) => Ok(Sent::To(holder)),
        b"u" => Ok(Sent::NoSubscriber(holder)),
        _ => Err(unexpected()),
    }
}

/// Parses a stored lease.
pub(super) fn holder(text: &[u8]) -> Result<Holder, BrokerError> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(unexpected)
}

/// A duration in ms, as scripts take it.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A reply that our scripts never give.
pub(super) fn unexpected() -> BrokerError {
    BrokerError::unreachable(&"Redis gave an unexpected reply; do all nodes use the same release?")
}

/// The elements of an array.
pub(super) fn array(value: Value) -> Result<Vec<Value>, BrokerError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(unexpected()),
    }
}

/// The reply of `renew.lua`.
pub(super) fn renewals(value: Value) -> Result<Vec<Renewal>, BrokerError> {
    let results = array(value)?.into_iter().map(|result| match result {
        Value::Int(1) => Ok(Renewal::Mine),
        Value::Int(2) => Ok(Renewal::Regained),
        Value::Int(4) => Ok(Renewal::Restored),
        Value::Int(3) => Ok(Renewal::Replaced),
        Value::Int(_) => Ok(Renewal::Lost),
        _ => Err(unexpected()),
    });
    results.collect()
}
