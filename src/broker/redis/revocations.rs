//! Revocations in Redis: a hash of what each says, and a sorted set of when each ends.

use async_trait::async_trait;
use redis::Value;

use super::broker::RedisBroker;
use super::reply::{array, unexpected};
use crate::broker::BrokerError;
use crate::broker::revocations::{REVOCATIONS, Revocations};
use crate::model::{Revocation, TokenGroup};

/// How many one call adds at most. Redis runs nothing else meanwhile.
const PER_CALL: usize = 500;

#[async_trait]
impl Revocations for RedisBroker {
    async fn revoke(&self, revocations: &[Revocation]) -> Result<bool, BrokerError> {
        for some in revocations.chunks(PER_CALL) {
            let mut revoke = self.scripts.revoke.on(&self.keys.revocations());
            revoke.arg(REVOCATIONS);
            for revocation in some {
                let Revocation {
                    tokens,
                    issued_before,
                    until,
                } = revocation;
                revoke.arg(tokens.as_str()).arg(issued_before).arg(until);
            }
            match self.publishers[0].query(revoke).await? {
                Value::Int(1) => {}
                Value::Int(0) => return Ok(false),
                _ => return Err(unexpected()),
            }
        }
        Ok(true)
    }

    async fn revocations(&self) -> Result<Vec<Revocation>, BrokerError> {
        let [revocations, _] = self.keys.revocations();
        let read = redis::cmd("HGETALL").arg(revocations).clone();
        let words = array(self.publishers[0].query(read).await?)?;
        Ok(words.chunks(2).filter_map(revocation).collect())
    }
}

fn revocation(words: &[Value]) -> Option<Revocation> {
    let [Value::BulkString(tokens), Value::BulkString(says)] = words else {
        return None;
    };
    let (before, until) = std::str::from_utf8(says).ok()?.split_once(' ')?;
    Some(Revocation {
        tokens: TokenGroup::known(std::str::from_utf8(tokens).ok()?),
        issued_before: before.parse().ok()?,
        until: until.parse().ok()?,
    })
}
