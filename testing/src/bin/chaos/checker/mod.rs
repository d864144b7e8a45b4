//! Checks the invariants I1 to I12 against what the clients saw and which faults were injected.
//!
//! Sound rather than complete: where a fault makes an outcome legal, or the order of two events is unknown, it
//! reports nothing.

mod calls;
mod delivery;
mod losses;
mod names;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::history::{Event, Kind, Record, What};

pub(crate) const INVARIANTS: usize = 12;

/// The result for one invariant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// The number of cases that were checked.
    pub(crate) judged: usize,
    pub(crate) violations: Vec<(Duration, String)>,
}

/// Verdicts by invariant.
pub(crate) type Verdicts = BTreeMap<usize, Verdict>;

pub(crate) fn judge(record: &Record) -> Verdicts {
    let mut case = Case::new(record);
    names::judge(&mut case);
    delivery::judge(&mut case);
    calls::judge(&mut case);
    service::judge(&mut case);
    case.verdicts
}

/// A connection as its client saw it.
#[derive(Clone, Debug)]
struct Conn<'a> {
    who: &'a str,
    life: u32,
    node: usize,
    resumed: bool,
    resumable: bool,
    /// When it was logged in: the time and the position in the history.
    from: Duration,
    index: usize,
    /// When the client learned that it had ended, or abandoned it.
    until: Duration,
    until_index: usize,
    /// When and how the server closed it.
    closed: Option<(Duration, Option<u16>)>,
    /// Abandoned for another while it was open.
    abandoned: bool,
    /// Since when the client has not read it.
    unread_since: Option<Duration>,
}

impl Conn<'_> {
    /// For how long the client had not read it at this time.
    fn unread_for(&self, at: Duration) -> Duration {
        let since = self.unread_since.unwrap_or(at);
        at.saturating_sub(since)
    }
}

/// The indexed history.
struct Case<'a> {
    record: &'a Record,
    end: Duration,
    /// Connections that were logged in, in order.
    conns: Vec<Conn<'a>>,
    by_conn: HashMap<u64, usize>,
    verdicts: Verdicts,
}

impl<'a> Case<'a> {
    fn new(record: &'a Record) -> Self {
        let end = record
            .events
            .last()
            .map_or(Duration::ZERO, |event| event.at);
        let mut case = Self {
            record,
            end,
            conns: Vec::new(),
            by_conn: HashMap::new(),
            verdicts: (1..=INVARIANTS)
                .map(|number| (number, Verdict::default()))
                .collect(),
        };
        for (index, event) in record.events.iter().enumerate() {
            case.index(index, event);
        }
        case
    }

    fn index(&mut self, index: usize, event: &'a Event) {
        if let What::LoggedIn {
            node,
            resumed,
            resumable,
        } = &event.what
        {
            self.by_conn.insert(event.conn, self.conns.len());
            self.conns.push(Conn {
                who: &event.who,
                life: event.life,
                node: *node,
                resumed: *resumed,
                resumable: *resumable,
                from: event.at,
                index,
                until: self.end,
                until_index: usize::MAX,
                closed: None,
                abandoned: false,
                unread_since: None,
            });
        }
        let ends = matches!(
            event.what,
            What::Closed { .. } | What::Abandoned | What::Ends(_)
        );
        let Some(conn) = self.by_conn.get(&event.conn).filter(|_| ends) else {
            return;
        };
        let conn = &mut self.conns[*conn];
        if let What::Closed { code } = event.what {
            conn.closed.get_or_insert((event.at, code));
        }
        if event.what == What::Abandoned {
            conn.abandoned = true;
            conn.unread_since = Some(event.at);
        }
        if conn.until_index == usize::MAX {
            (conn.until, conn.until_index) = (event.at, index);
        }
    }

    fn conn(&self, conn: u64) -> Option<&Conn<'a>> {
        Some(&self.conns[*self.by_conn.get(&conn)?])
    }

    /// The connections of one client, in order.
    fn conns_of<'b>(&'b self, who: &'b str) -> impl DoubleEndedIterator<Item = &'b Conn<'a>> {
        self.conns.iter().filter(move |conn| conn.who == who)
    }

    fn events_of<'b>(&'b self, who: &'b str) -> impl Iterator<Item = (usize, &'a Event)> + 'b {
        let events = self.record.events.iter().enumerate();
        events.filter(move |(_, event)| &*event.who == who)
    }

    /// Whether a fault of these kinds hit this node, or all nodes, in this time.
    fn troubled(&self, kinds: &[Kind], node: usize, from: Duration, until: Duration) -> bool {
        self.record.troubles.iter().any(|trouble| {
            kinds.contains(&trouble.kind)
                && trouble.node.is_none_or(|struck| struck == node)
                && trouble.overlaps(from, until)
        })
    }

    /// The same for the nodes that this client was connected to recently.
    fn troubled_at(&self, kinds: &[Kind], who: &str, from: Duration, until: Duration) -> bool {
        let lately = self
            .conns_of(who)
            .filter(|conn| conn.from <= until && conn.until + secs(5.0) >= from);
        let mut nodes: Vec<usize> = lately.map(|conn| conn.node).collect();
        nodes.extend(
            self.conns_of(who)
                .rfind(|conn| conn.from <= until)
                .map(|conn| conn.node),
        );
        // A client without a connection: only faults that hit all nodes.
        nodes.push(usize::MAX);
        nodes
            .into_iter()
            .any(|node| self.troubled(kinds, node, from, until))
    }

    fn judged(&mut self, invariant: usize) {
        self.verdicts.entry(invariant).or_default().judged += 1;
    }

    fn violated(&mut self, invariant: usize, at: Duration, evidence: String) {
        let verdict = self.verdicts.entry(invariant).or_default();
        verdict.violations.push((at, evidence));
    }
}

fn secs(seconds: f32) -> Duration {
    Duration::from_secs_f32(seconds)
}

/// Whether this is a caller and not one of the auxiliary clients.
fn is_caller(who: &str) -> bool {
    let mut messages = who.chars();
    matches!(messages.next(), Some('r' | 'p')) && messages.all(|message| message.is_ascii_digit())
}
