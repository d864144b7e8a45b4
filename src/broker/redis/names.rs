//! Reads who holds names, and where HTTP sessions are at home.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::broker::RedisBroker;
use super::reply::{self, millis, unexpected};
use crate::broker::{BrokerError, Holder};
use crate::model::{Address, Realm, SecretHash, SessionId, UserName};

/// How many keys one SCAN visits. It blocks Redis for half a millisecond.
const KEYS_PER_SCAN: usize = 1000;

impl RedisBroker {
    /// Scans for at most `most` names of a realm.
    pub(super) async fn scan_names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, BrokerError> {
        let (pattern, start) = self.keys.presences(realm);
        let mut names = HashMap::new();
        let mut cursor = String::from("0");
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern);
            scan.arg("COUNT").arg(KEYS_PER_SCAN);
            let (next, keys) = reply::scanned(self.publishers[0].query(scan).await?)?;
            // SCAN may return a key twice, hence the map.
            let found = keys.iter().filter_map(|key| {
                let text = format!("{}/{}", realm.encoded(), key.get(start..key.len() - 1)?);
                text.parse().ok()
            });
            let found: Vec<Address> = found.collect();
            let holders = self.read_holders(&found).await?;
            for (address, holder) in found.into_iter().zip(holders) {
                names.extend(holder.map(|holder| (address.name, holder)));
            }
            if next == "0" || names.len() >= most {
                return Ok(names.into_iter().take(most).collect());
            }
            cursor = next;
        }
    }

    /// Reads the holders of these names.
    pub(super) async fn read_holders(
        &self,
        addresses: &[Address],
    ) -> Result<Vec<Option<Holder>>, BrokerError> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = redis::cmd("MGET");
        for address in addresses {
            read.arg(self.keys.presence(address));
        }
        // Not through the node's own publisher: its lease must not wait for a long reply.
        let values = reply::array(self.publishers[0].query(read).await?)?;
        let holders = values.into_iter().map(|value| match value {
            Value::BulkString(lease) => reply::holder(&lease).ok(),
            _ => None,
        });
        Ok(holders.collect())
    }

    /// Stores the locator of an HTTP session.
    pub(super) async fn write_home(
        &self,
        session: SessionId,
        locator: Bytes,
        ttl: Duration,
    ) -> Result<(), BrokerError> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.home(session)).arg(&locator[..]);
        set.arg("PX").arg(millis(ttl).max(1));
        self.publishers[0].query(set).await.map(drop)
    }

    /// Reads the locator of an HTTP session.
    pub(super) async fn read_home(&self, session: SessionId) -> Result<Option<Bytes>, BrokerError> {
        let get = redis::cmd("GET").arg(self.keys.home(session)).clone();
        match self.publishers[0].query(get).await? {
            Value::Nil => Ok(None),
            Value::BulkString(locator) => Ok(Some(locator.into())),
            _ => Err(unexpected()),
        }
    }

    /// Whether a session with this secret holds the name.
    pub(super) async fn check_secret(
        &self,
        address: &Address,
        secret: &SecretHash,
    ) -> Result<bool, BrokerError> {
        let [presence, _, record, _] = self.keys.of(address);
        let mut read = redis::cmd("HMGET");
        read.arg(record).arg("session").arg("hash");
        // Both commands go through one publisher, so no other request of this node runs between them.
        let publisher = self.publisher(address);
        let (holds, known) = (
            publisher.query(redis::cmd("GET").arg(presence).clone()),
            publisher.query(read),
        );
        let (Value::BulkString(lease), Value::Array(known)) = (holds.await?, known.await?) else {
            return Ok(false);
        };
        let session = reply::holder(&lease)?.session.to_string();
        let expected = [session.as_str(), secret.as_str()];
        Ok(known == expected.map(|word| Value::BulkString(word.into())))
    }
}
