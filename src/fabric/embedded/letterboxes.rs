//! Letterboxes in memory, with the promises of those in Redis.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{Socket, Switch};
use crate::fabric::FabricError;
use crate::fabric::letterbox::{
    Carrier, DOWNLINK, Entered, Heard, KEYS, KEYS_LIVE, Key, LAST_WORDS_LIVE, LIVES, Letterboxes,
    Look, Post, Posted, READ_AT_ONCE, Read, Taken, Telling, Then, UPLINK,
};
use crate::fabric::wakes::{Ear, Wakes};
use crate::model::{EntryId, NodeId, SecretHash, SessionId};

/// All letterboxes of a switch.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    /// Held for a few map operations.
    state: Mutex<State>,
    wakes: Arc<Wakes>,
}

#[derive(Debug, Default)]
struct State {
    boxes: HashMap<SessionId, Letterbox>,
    /// Counts entries, of all streams.
    entries: u64,
}

#[derive(Debug)]
struct Letterbox {
    hash: SecretHash,
    carrier: Carrier,
    number: u64,
    cursor: EntryId,
    notes: HashMap<String, String>,
    uplink: VecDeque<(EntryId, Option<Bytes>)>,
    downlink: VecDeque<(EntryId, Bytes)>,
    /// The last place that was told, and the last that is not kept any more.
    last: EntryId,
    trimmed: EntryId,
    reader: u64,
    keys: VecDeque<(String, usize, Instant)>,
    seen: Instant,
    until: Instant,
    over: bool,
}

impl Boxes {
    /// Everything is forgotten.
    pub(super) fn forget(&self) {
        self.lock().boxes.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place(&mut self) -> EntryId {
        self.entries += 1;
        EntryId {
            millis: self.entries,
            sequence: 0,
        }
    }

    fn live(&mut self, session: SessionId) -> Option<&mut Letterbox> {
        let now = Instant::now();
        if self.boxes.get(&session).is_some_and(|it| it.until <= now) {
            self.boxes.remove(&session);
        }
        self.boxes.get_mut(&session)
    }

    fn enter(&mut self, key: &Key) -> Entered<&mut Letterbox> {
        match self.live(key.session) {
            None => Entered::Gone,
            Some(letterbox) if letterbox.hash != key.hash => Entered::Wrong,
            Some(letterbox) => Entered::In(letterbox),
        }
    }

    /// The letterbox, if it is still this carrier's.
    fn carried(&mut self, session: SessionId, epoch: u64) -> Option<&mut Letterbox> {
        let letterbox = self.live(session).filter(|it| !it.over);
        letterbox.filter(|it| it.carrier.epoch == epoch)
    }
}

impl Letterbox {
    fn touch(&mut self) {
        self.seen = Instant::now();
        self.until = self.seen + LIVES;
    }

    fn has_room(&self, said: &[Bytes]) -> bool {
        let waiting = self.uplink.iter().filter_map(|(_, said)| said.as_ref());
        let bytes: usize = waiting.chain(said).map(Bytes::len).sum();
        self.uplink.len() + said.len() <= UPLINK.entries && bytes <= UPLINK.bytes
    }

    fn notes(&self) -> Vec<(String, String)> {
        self.notes.clone().into_iter().collect()
    }

    fn trim(&mut self) {
        let mut bytes: usize = self.downlink.iter().map(|(_, told)| told.len()).sum();
        while self.downlink.len() > DOWNLINK.entries
            || (bytes > DOWNLINK.bytes && self.downlink.len() > 1)
        {
            let Some((place, told)) = self.downlink.pop_front() else {
                return;
            };
            bytes -= told.len();
            self.trimmed = place;
        }
    }
}

impl Switch {
    fn boxes(&self) -> Result<MutexGuard<'_, State>, FabricError> {
        // Away for the one, away for the other.
        drop(self.reach()?);
        Ok(self.boxes.lock())
    }
}

#[async_trait]
impl Letterboxes for Socket {
    async fn open(&self, key: &Key, said: Vec<Bytes>) -> Result<(), FabricError> {
        let mut state = self.switch.boxes()?;
        let now = Instant::now();
        state.boxes.retain(|_, letterbox| letterbox.until > now);
        let said = said.into_iter().map(|said| (state.place(), Some(said)));
        let letterbox = Letterbox {
            hash: key.hash.clone(),
            carrier: Carrier {
                node: Some(self.node.clone()),
                epoch: 1,
            },
            number: 0,
            cursor: EntryId::default(),
            notes: HashMap::new(),
            uplink: said.collect(),
            downlink: VecDeque::new(),
            last: EntryId::default(),
            trimmed: EntryId::default(),
            reader: 0,
            keys: VecDeque::new(),
            seen: now,
            until: now + LIVES,
            over: false,
        };
        state.boxes.insert(key.session, letterbox);
        Ok(())
    }

    async fn look(&self, key: &Key) -> Result<Entered<Look>, FabricError> {
        Ok(match self.switch.boxes()?.enter(key) {
            Entered::In(letterbox) if letterbox.over => Entered::Gone,
            Entered::In(letterbox) => Entered::In(Look {
                notes: letterbox.notes(),
                carrier: letterbox.carrier.clone(),
            }),
            Entered::Gone => Entered::Gone,
            Entered::Wrong => Entered::Wrong,
        })
    }

    async fn post(&self, key: &Key, post: Post) -> Result<Entered<Posted>, FabricError> {
        let mut state = self.switch.boxes()?;
        let closes = post.said.is_none();
        let said = post.said.unwrap_or_default();
        // Taken before it is known whether there is room: a place that nobody has is none.
        let places: Vec<EntryId> = (0..=said.len()).map(|_| state.place()).collect();
        let letterbox = match state.enter(key) {
            Entered::In(letterbox) if letterbox.over => return Ok(Entered::Gone),
            Entered::In(letterbox) => letterbox,
            Entered::Gone => return Ok(Entered::Gone),
            Entered::Wrong => return Ok(Entered::Wrong),
        };
        letterbox.touch();
        let carrier = letterbox.carrier.clone();
        letterbox.keys.retain(|(_, _, at)| at.elapsed() < KEYS_LIVE);
        let known = letterbox
            .keys
            .iter()
            .find(|(known, ..)| Some(known) == post.once.as_ref());
        if let Some((_, count, _)) = known {
            return Ok(Entered::In(Posted::Accepted(*count, carrier)));
        }
        if !closes && !letterbox.has_room(&said) {
            return Ok(Entered::In(Posted::Full(carrier)));
        }
        let count = said.len();
        let said = said.into_iter().map(Some);
        let said = said.chain(closes.then_some(None));
        letterbox.uplink.extend(places.into_iter().zip(said));
        if let Some(once) = post.once {
            if letterbox.keys.len() == KEYS {
                letterbox.keys.pop_front();
            }
            letterbox.keys.push_back((once, count, Instant::now()));
        }
        self.switch.boxes.wakes.wake(key.session);
        Ok(Entered::In(Posted::Accepted(count, carrier)))
    }

    async fn attach(&self, key: &Key) -> Result<Entered<u64>, FabricError> {
        let mut state = self.switch.boxes()?;
        Ok(match state.enter(key) {
            Entered::In(letterbox) => {
                letterbox.reader += 1;
                self.switch.boxes.wakes.wake(key.session);
                Entered::In(letterbox.reader)
            }
            Entered::Gone => Entered::Gone,
            Entered::Wrong => Entered::Wrong,
        })
    }

    async fn read(
        &self,
        key: &Key,
        reader: u64,
        after: Option<EntryId>,
    ) -> Result<Entered<Read>, FabricError> {
        let mut state = self.switch.boxes()?;
        let letterbox = match state.enter(key) {
            Entered::In(letterbox) => letterbox,
            Entered::Gone => return Ok(Entered::Gone),
            Entered::Wrong => return Ok(Entered::Wrong),
        };
        if letterbox.reader != reader {
            return Ok(Entered::In(Read::Replaced));
        }
        let mut after = after.unwrap_or_default();
        let reset = after < letterbox.trimmed || after > letterbox.last;
        if after > letterbox.last {
            after = EntryId::default();
        }
        let kept = letterbox.downlink.iter();
        let events: Vec<_> = kept
            .filter(|(place, _)| *place > after)
            .take(READ_AT_ONCE)
            .cloned()
            .collect();
        if letterbox.over && events.is_empty() {
            return Ok(Entered::Gone);
        }
        if !letterbox.over {
            letterbox.touch();
        }
        Ok(Entered::In(Read::Events {
            events,
            reset,
            carrier: letterbox.carrier.clone(),
        }))
    }

    async fn take(&self, session: SessionId, epoch: u64) -> Result<Option<Taken>, FabricError> {
        let mut state = self.switch.boxes()?;
        let Some(letterbox) = state.carried(session, epoch) else {
            return Ok(None);
        };
        letterbox.carrier = Carrier {
            node: Some(self.node.clone()),
            epoch: epoch + 1,
        };
        letterbox.number = 0;
        self.switch.boxes.wakes.wake(session);
        Ok(Some(Taken {
            epoch: epoch + 1,
            cursor: letterbox.cursor,
            notes: letterbox.notes(),
        }))
    }

    async fn hear(
        &self,
        session: SessionId,
        epoch: u64,
        after: EntryId,
    ) -> Result<Heard, FabricError> {
        let mut state = self.switch.boxes()?;
        let Some(letterbox) = state.live(session).filter(|it| !it.over) else {
            return Ok(Heard::Gone);
        };
        if letterbox.carrier.epoch != epoch {
            return Ok(Heard::Taken);
        }
        let entries = letterbox.uplink.iter();
        let entries = entries.filter(|(place, _)| *place > after);
        Ok(Heard::Said {
            entries: entries.take(READ_AT_ONCE).cloned().collect(),
            idle: letterbox.seen.elapsed(),
        })
    }

    async fn tell(
        &self,
        session: SessionId,
        epoch: u64,
        number: u64,
        telling: Arc<Telling>,
    ) -> Result<bool, FabricError> {
        let mut state = self.switch.boxes()?;
        let places: Vec<EntryId> = telling.told.iter().map(|_| state.place()).collect();
        let Some(letterbox) = state.carried(session, epoch) else {
            return Ok(false);
        };
        if letterbox.number >= number {
            return Ok(true);
        }
        letterbox.number = number;
        letterbox.notes.extend(telling.notes.iter().cloned());
        if let Some(last) = places.last() {
            letterbox.last = *last;
        }
        let told = places.into_iter().zip(telling.told.iter().cloned());
        letterbox.downlink.extend(told);
        letterbox.trim();
        if let Some(cursor) = telling.cursor {
            letterbox.cursor = cursor;
            letterbox.uplink.retain(|(place, _)| *place > cursor);
        }
        match telling.then {
            Then::GoesOn => {}
            Then::HandedOver => letterbox.carrier.node = None::<NodeId>,
            Then::Over => {
                letterbox.over = true;
                letterbox.uplink.clear();
                letterbox.until = Instant::now() + LAST_WORDS_LIVE;
            }
        }
        self.switch.boxes.wakes.wake(session);
        Ok(true)
    }

    fn listen(&self, session: SessionId) -> Ear {
        self.switch.boxes.wakes.listen(session)
    }
}
