//! Letterboxes in Redis: a record, two streams and the idempotency keys of each, all in one slot.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value};

use super::RedisFabric;
use super::publish;
use super::wire::{self, millis, unexpected};
use crate::fabric::letterbox::{
    Carrier, DOWNLINK, Entered, Heard, KEYS, KEYS_LIVE, Key, LAST_WORDS_LIVE, LIVES, Letterboxes,
    Look, Post, Posted, READ_AT_ONCE, Read, Taken, Telling, Then, UPLINK, address,
};
use crate::fabric::{Ear, FabricError};
use crate::model::{EntryId, NodeId, SessionId};

/// How the fields of carriers' notes begin.
const NOTE: &str = "n:";

#[async_trait]
impl Letterboxes for RedisFabric {
    async fn open(&self, key: &Key, said: Vec<Bytes>) -> Result<(), FabricError> {
        let [record, uplink, ..] = self.keys.of_letterbox(key.session);
        let mut open = self.scripts.letterbox_open.on([&record, &uplink]);
        open.arg(key.hash.as_str())
            .arg(self.node.as_str())
            .arg(millis(LIVES));
        for frame in &said {
            open.arg(&frame[..]);
        }
        self.of_letterbox(key.session, open).await.map(drop)
    }

    async fn look(&self, key: &Key) -> Result<Entered<Look>, FabricError> {
        let [record, ..] = self.keys.of_letterbox(key.session);
        let mut look = self.scripts.letterbox_look.on([&record]);
        look.arg(key.hash.as_str());
        entered(self.of_letterbox(key.session, look).await?, |mut words| {
            let carrier = words.carrier()?;
            let notes = words.notes()?;
            Ok(Look { notes, carrier })
        })
    }

    async fn post(&self, key: &Key, post: Post) -> Result<Entered<Posted>, FabricError> {
        let keys = self.keys.of_letterbox(key.session);
        let mut call = self.scripts.letterbox_post.on(&keys);
        call.arg(key.hash.as_str())
            .arg(millis(LIVES))
            .arg(post.once.unwrap_or_default())
            .arg(KEYS)
            .arg(millis(KEYS_LIVE))
            .arg(UPLINK.entries)
            .arg(UPLINK.bytes)
            .arg(u8::from(post.said.is_none()))
            .arg(self.deadline());
        for frame in post.said.iter().flatten() {
            call.arg(&frame[..]);
        }
        let posted = entered(self.of_letterbox(key.session, call).await?, |mut words| {
            let count = words.number()?;
            let carrier = words.carrier()?;
            Ok(match usize::try_from(count) {
                Ok(count) => Posted::Accepted(count, carrier),
                Err(_) => Posted::Full(carrier),
            })
        })?;
        if let Entered::In(Posted::Accepted(_, Carrier { node, .. })) = &posted {
            self.wake(key.session, node.as_ref());
        }
        Ok(posted)
    }

    async fn attach(&self, key: &Key) -> Result<Entered<u64>, FabricError> {
        let [record, ..] = self.keys.of_letterbox(key.session);
        let mut attach = self.scripts.letterbox_attach.on([&record]);
        attach
            .arg(key.hash.as_str())
            .arg(self.node.as_str())
            .arg(self.deadline());
        entered(
            self.of_letterbox(key.session, attach).await?,
            |mut words| {
                let number = words.number()?;
                let before = words.text()?;
                self.wake(key.session, known(&before).as_ref());
                u64::try_from(number).map_err(|_| unexpected())
            },
        )
    }

    async fn read(
        &self,
        key: &Key,
        reader: u64,
        after: Option<EntryId>,
    ) -> Result<Entered<Read>, FabricError> {
        let [record, uplink, downlink, _] = self.keys.of_letterbox(key.session);
        let mut read = self
            .scripts
            .letterbox_read
            .on([&record, &uplink, &downlink]);
        read.arg(key.hash.as_str())
            .arg(reader)
            .arg(after.map(|after| after.to_string()).unwrap_or_default())
            .arg(millis(LIVES))
            .arg(READ_AT_ONCE);
        let answer = self.of_letterbox(key.session, read).await?;
        if matches!(&answer, Value::BulkString(word) if word == b"replaced") {
            return Ok(Entered::In(Read::Replaced));
        }
        entered(answer, |mut words| {
            let reset = words.number()? == 1;
            let carrier = words.carrier()?;
            let entries = wire::rows(words.value()?)?;
            let events = entries.into_iter().map(|(id, _, text)| (id, text));
            Ok(Read::Events {
                events: events.collect(),
                reset,
                carrier,
            })
        })
    }

    async fn take(&self, session: SessionId, epoch: u64) -> Result<Option<Taken>, FabricError> {
        let [record, ..] = self.keys.of_letterbox(session);
        let mut take = self.scripts.letterbox_take.on([&record]);
        take.arg(epoch).arg(self.node.as_str()).arg(self.deadline());
        let mut words = match self.of_letterbox(session, take).await? {
            Value::Nil => return Ok(None),
            Value::Array(words) => Words(words.into_iter()),
            _ => return Err(unexpected()),
        };
        let before = words.text()?;
        // Should it live all the same, it learns what has happened.
        self.wake(session, known(&before).as_ref());
        Ok(Some(Taken {
            epoch: words.number()?.try_into().map_err(|_| unexpected())?,
            cursor: words.text()?.parse().map_err(|_| unexpected())?,
            notes: words.notes()?,
        }))
    }

    async fn hear(
        &self,
        session: SessionId,
        epoch: u64,
        after: EntryId,
    ) -> Result<Heard, FabricError> {
        let [record, uplink, ..] = self.keys.of_letterbox(session);
        let mut hear = self.scripts.letterbox_hear.on([&record, &uplink]);
        hear.arg(epoch).arg(after.to_string()).arg(READ_AT_ONCE);
        let mut words = match self.of_letterbox(session, hear).await? {
            Value::BulkString(word) if word == b"taken" => return Ok(Heard::Taken),
            Value::BulkString(_) => return Ok(Heard::Gone),
            Value::Array(words) => Words(words.into_iter()),
            _ => return Err(unexpected()),
        };
        // A clock that was set back makes nobody idle.
        let idle = Duration::from_millis(words.number()?.try_into().unwrap_or_default());
        let entries = wire::rows(words.value()?)?.into_iter();
        let entries = entries.map(|(id, kind, text)| (id, (kind == "f").then_some(text)));
        Ok(Heard::Said {
            entries: entries.collect(),
            idle,
        })
    }

    async fn tell(
        &self,
        session: SessionId,
        epoch: u64,
        number: u64,
        telling: Arc<Telling>,
    ) -> Result<bool, FabricError> {
        let tell = self.tell_command(session, epoch, number, &telling);
        match self.of_letterbox(session, tell).await? {
            Value::Nil => Ok(false),
            Value::BulkString(reader) => {
                let reader = String::from_utf8(reader).map_err(|_| unexpected())?;
                self.wake(session, known(&reader).as_ref());
                Ok(true)
            }
            _ => Err(unexpected()),
        }
    }

    fn listen(&self, session: SessionId) -> Ear {
        self.wakes.listen(session)
    }
}

impl RedisFabric {
    /// Everything about one letterbox goes by one lane, in order.
    fn of_letterbox(
        &self,
        session: SessionId,
        command: Cmd,
    ) -> impl Future<Output = Result<Value, FabricError>> + Send + 'static {
        self.lane(&address(session)).ask(command)
    }

    /// Wakes whoever listens on that node; should it be lost, it is late until the next look.
    fn wake(&self, session: SessionId, node: Option<&NodeId>) {
        match node {
            Some(node) if *node == self.node => self.wakes.wake(session),
            Some(node) => {
                let channel = self.keys.node_channel(node);
                drop(self.own_lane.ask(publish(channel, wire::wake(session))));
            }
            None => {}
        }
    }

    fn tell_command(&self, session: SessionId, epoch: u64, number: u64, telling: &Telling) -> Cmd {
        let [record, uplink, downlink, _] = self.keys.of_letterbox(session);
        let bytes = telling.told.iter().map(Bytes::len).sum();
        let (args, keys) = (
            telling.told.len() + 2 * telling.notes.len() + 10,
            [&record, &uplink, &downlink],
        );
        let mut tell = self.scripts.letterbox_tell.with_room(keys, args, bytes);
        tell.arg(epoch)
            .arg(number)
            .arg(millis(LIVES))
            .arg(millis(LAST_WORDS_LIVE))
            .arg(DOWNLINK.entries)
            .arg(DOWNLINK.bytes);
        match telling.cursor {
            Some(cursor) => tell.arg(cursor.to_string()).arg(cursor.next().to_string()),
            None => tell.arg("").arg(""),
        };
        tell.arg(match telling.then {
            Then::GoesOn => "on",
            Then::HandedOver => "handed",
            Then::Over => "over",
        });
        tell.arg(telling.notes.len());
        for (field, value) in &telling.notes {
            tell.arg(field).arg(value);
        }
        for frame in &telling.told {
            tell.arg(&frame[..]);
        }
        tell
    }
}

/// What a script says that looks at the secret first.
fn entered<T>(
    answer: Value,
    read: impl FnOnce(Words) -> Result<T, FabricError>,
) -> Result<Entered<T>, FabricError> {
    match answer {
        Value::BulkString(word) if word == b"wrong" => Ok(Entered::Wrong),
        Value::BulkString(_) => Ok(Entered::Gone),
        Value::Array(words) => read(Words(words.into_iter())).map(Entered::In),
        _ => Err(unexpected()),
    }
}

fn known(node: &str) -> Option<NodeId> {
    (!node.is_empty()).then(|| NodeId::known(node))
}

/// The words of an answer, one after the other.
struct Words(std::vec::IntoIter<Value>);

impl Words {
    fn value(&mut self) -> Result<Value, FabricError> {
        self.0.next().ok_or_else(unexpected)
    }

    fn text(&mut self) -> Result<String, FabricError> {
        match self.value()? {
            Value::BulkString(text) => String::from_utf8(text).map_err(|_| unexpected()),
            Value::Int(number) => Ok(number.to_string()),
            _ => Err(unexpected()),
        }
    }

    fn number(&mut self) -> Result<i64, FabricError> {
        self.text()?.parse().map_err(|_| unexpected())
    }

    fn carrier(&mut self) -> Result<Carrier, FabricError> {
        let node = known(&self.text()?);
        let epoch = self.number()?.try_into().map_err(|_| unexpected())?;
        Ok(Carrier { node, epoch })
    }

    /// The notes among the fields that are left.
    fn notes(&mut self) -> Result<Vec<(String, String)>, FabricError> {
        let mut notes = Vec::new();
        while let Ok(field) = self.text() {
            let value = self.text()?;
            if let Some(field) = field.strip_prefix(NOTE) {
                notes.push((field.to_owned(), value));
            }
        }
        Ok(notes)
    }
}
