//! What the client of an HTTP session was told, kept at its home for a stream that breaks.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::fields::{Reader, Writer};
use crate::model::EntryId;

/// How much is kept: whoever comes back for more than this has lost something, and is told so.
const MOST_EVENTS: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

/// Where a client has come to, told as the id of each event. A stream goes on exactly by `number` where this run of the buffer is known; where
/// it is lost with its node, behind `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    number: u64,
    run: u32,
    /// The last of its inbox that the client was told; `None` before it was told that it is logged in.
    pub(super) seq: Option<EntryId>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.run)?;
        self.seq.map_or(Ok(()), |seq| write!(f, "-{seq}"))
    }
}

/// The text was never told as the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidPlace;

impl FromStr for Place {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let mut words = text.splitn(3, '-');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (number, run) = (number().ok_or(InvalidPlace)?, number().ok_or(InvalidPlace)?);
        Ok(Self {
            number,
            run: run.try_into().map_err(|_| InvalidPlace)?,
            seq: match words.next() {
                None => None,
                Some(seq) => Some(seq.parse().map_err(|_| InvalidPlace)?),
            },
        })
    }
}

/// What was told, oldest first.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    events: VecDeque<Told>,
    bytes: usize,
    /// Of the last event.
    last: Place,
    /// The next event says only what a client knows that has heard of its login.
    pub(super) greets: bool,
    /// What was told up to here, and is not in the buffer, is told by nobody any more.
    pub(super) confirmed: EntryId,
    /// The client has heard what is up to here in its inbox, of an earlier run.
    heard: EntryId,
}

#[derive(Debug)]
struct Told {
    place: Place,
    /// The place in its inbox of what was told, if it has one.
    own: Option<EntryId>,
    is_greeting: bool,
    text: Bytes,
}

/// What a client has not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// What it was told, each with its place, oldest first.
    pub(super) events: Vec<(Place, Bytes)>,
    /// Something before that is lost.
    pub(super) reset: bool,
}

impl Looked {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.reset
    }
}

impl Buffer {
    pub(super) fn new() -> Self {
        let mut buffer = Self::default();
        // 0 is no run: the beginning of any.
        buffer.last.run = rand::random_range(1..=u32::MAX);
        buffer
    }

    pub(super) fn tell(&mut self, text: Bytes, own: Option<EntryId>) {
        let is_greeting = std::mem::take(&mut self.greets);
        self.last.number += 1;
        self.last.seq = self.last.seq.max(own);
        self.keep(Told {
            place: self.last,
            own,
            is_greeting,
            text,
        });
    }

    fn keep(&mut self, told: Told) {
        self.bytes += told.text.len();
        self.events.push_back(told);
        while (self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES)
            && self.events.len() > 1
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.text.len();
        }
    }

    /// The client is told that it is logged in by what follows.
    pub(super) fn logs_in(&mut self) {
        self.last.seq.get_or_insert_default();
    }

    /// How much was told.
    pub(super) fn told(&self) -> u64 {
        self.last.number
    }

    /// The last of its inbox that the client was told.
    pub(super) fn seq(&self) -> Option<EntryId> {
        self.last.seq
    }

    /// How much of this run a client has that has come to this place.
    pub(super) fn number_of(&self, place: &Place) -> Option<u64> {
        (place.run == self.last.run).then_some(place.number)
    }

    /// What there is behind this place, which is moved on.
    pub(super) fn read(&mut self, place: &mut Place) -> Looked {
        let number = self.number_of(place);
        if number.is_none() {
            // It has heard of other runs what is up to there in its inbox: that may be told again here at any time.
            self.heard = self.heard.max(place.seq.unwrap_or_default());
        }
        let is_news = |told: &&Told| match number {
            Some(number) => told.place.number > number,
            None => !told.is_greeting || place.seq.is_none(),
        };
        let first = self.events.front().map(|told| told.place.number);
        let first = first.unwrap_or(self.last.number + 1);
        let events = self.events.iter().filter(is_news);
        let events = events.filter(|told| told.own.is_none_or(|own| own > self.heard));
        let looked = Looked {
            events: events.map(|told| (told.place, told.text.clone())).collect(),
            reset: match number {
                Some(number) => number + 1 < first,
                None => first > 1 || place.seq.unwrap_or_default() < self.confirmed,
            },
        };
        if !looked.is_empty() {
            *place = self.last;
        }
        looked
    }

    /// Everything, for another node that goes on with it.
    pub(super) fn write(&self, to: &mut Writer) {
        to.text(self.last);
        to.text(self.confirmed);
        to.text(self.heard);
        to.number(self.events.len() as u64);
        for told in &self.events {
            to.text(told.place);
            to.text(told.own.map(|own| own.to_string()).unwrap_or_default());
            to.number(told.is_greeting.into());
            to.bytes(&told.text);
        }
    }

    /// What another node has written.
    pub(super) fn read_from(from: &mut Reader) -> Option<Self> {
        let mut buffer = Self {
            last: from.parse()?,
            confirmed: from.parse()?,
            heard: from.parse()?,
            ..Self::default()
        };
        for _ in 0..from.number()? {
            buffer.keep(Told {
                place: from.parse()?,
                own: from.parse(),
                is_greeting: from.number()? == 1,
                text: from.bytes()?,
            });
        }
        Some(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(millis: u64) -> EntryId {
        EntryId {
            millis,
            sequence: 0,
        }
    }

    fn texts(looked: &Looked) -> Vec<&str> {
        let texts = looked.events.iter();
        texts
            .map(|(_, text)| std::str::from_utf8(text).unwrap())
            .collect()
    }

    /// A login, an ack, and two signals.
    fn told() -> Buffer {
        let mut buffer = Buffer::new();
        buffer.tell("pong".into(), None);
        buffer.logs_in();
        buffer.tell("login".into(), None);
        buffer.tell("one".into(), Some(seq(1)));
        buffer.tell("ack".into(), None);
        buffer.tell("two".into(), Some(seq(2)));
        buffer
    }

    #[test]
    fn a_place_survives_its_text() {
        assert_eq!(Place::default().to_string(), "0-0");
        for place in told().read(&mut Place::default()).events {
            assert_eq!(place.0.to_string().parse(), Ok(place.0));
        }
        for dirt in ["", "x", "1", "-", "1-2-3", "1-x", "1-4294967296", "é-1"] {
            assert_eq!(dirt.parse::<Place>(), Err(InvalidPlace), "{dirt}");
        }
    }

    #[test]
    fn a_stream_goes_on_behind_its_place_also_at_another_node() {
        let mut buffer = told();
        let mut writer = Writer::default();
        buffer.write(&mut writer);
        let mut moved = Buffer::read_from(&mut Reader::new(writer.into())).unwrap();
        for buffer in [&mut buffer, &mut moved] {
            let mut place = Place::default();
            let all = buffer.read(&mut place);
            assert_eq!(texts(&all), ["pong", "login", "one", "ack", "two"]);
            assert_eq!(
                (all.reset, buffer.read(&mut place).is_empty()),
                (false, true)
            );
            let mut third = all.events[2].0;
            assert_eq!(texts(&buffer.read(&mut third)), ["ack", "two"]);
        }
    }

    #[test]
    fn where_the_run_is_lost_a_stream_goes_on_behind_its_inbox() {
        let before = told().read(&mut Place::default()).events;
        let mut buffer = Buffer::new();
        buffer.greets = true;
        buffer.logs_in();
        buffer.tell("login again".into(), None);
        buffer.tell("two".into(), Some(seq(2)));
        buffer.confirmed = seq(1);
        let mut place = Place::default();
        let of_nothing = buffer.read(&mut place);
        assert_eq!(texts(&of_nothing), ["login again", "two"]);
        assert!(of_nothing.reset, "one is not told again");
        place = before[0].0;
        assert_eq!(texts(&buffer.read(&mut place)), ["login again", "two"]);
        place = before[2].0;
        let of_one = buffer.read(&mut place);
        assert_eq!((texts(&of_one), of_one.reset), (vec!["two"], false));
        place = before[4].0;
        assert!(buffer.read(&mut place).is_empty());
        buffer.tell("three".into(), Some(seq(3)));
        assert_eq!(texts(&buffer.read(&mut place)), ["three"]);
    }

    #[test]
    fn what_was_heard_of_an_earlier_run_is_not_told_again_however_late_it_comes() {
        let before = told().read(&mut Place::default()).events;
        let mut buffer = Buffer::new();
        buffer.logs_in();
        buffer.tell("ack".into(), None);
        let mut place = before[4].0;
        assert_eq!(texts(&buffer.read(&mut place)), ["ack"]);
        buffer.tell("two".into(), Some(seq(2)));
        buffer.tell("three".into(), Some(seq(3)));
        assert_eq!(texts(&buffer.read(&mut place)), ["three"]);
    }

    #[test]
    fn so_much_is_kept_and_a_loss_is_told() {
        let mut buffer = told();
        let mut place = Place::default();
        buffer.read(&mut place);
        let mut at_the_end = place;
        for _ in 0..=MOST_EVENTS {
            buffer.tell("x".into(), None);
        }
        let late = buffer.read(&mut place);
        assert_eq!((late.events.len(), late.reset), (MOST_EVENTS, true));
        assert!(buffer.read(&mut Place::default()).reset);
        assert!(buffer.read(&mut place).is_empty(), "the loss is told once");
        buffer.tell("y".repeat(MOST_BYTES).into(), None);
        assert_eq!(buffer.read(&mut at_the_end).events.len(), 1);
    }
}
