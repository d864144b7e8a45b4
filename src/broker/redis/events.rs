//! The log of events over Redis: a stream, and hashes of what is open on each node.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::{Cmd, Value};

use super::broker::RedisBroker;
use super::orphans::{self, Open};
use super::reply::{array, millis, unexpected};
use crate::broker::events::{DEAD_LETTERS, WAITING};
use crate::broker::{BrokerError, Event, EventLog, Orphan};
use crate::model::{CallFact, CallNews, Fact, What};

/// How long events wait, and what is open is kept.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// How long the end of a session or a call is remembered: longer than anybody who tells of it late needs.
const ENDS_KEPT: Duration = Duration::from_mins(10);
/// The key of the stream, of the dead letters, of the nodes, and of who tells events.
const STREAM: &str = "e";
const DEAD: &str = "d";
const NODES: &str = "n";
const LEADER: &str = "l";

#[async_trait]
impl EventLog for RedisBroker {
    fn record(&self, fact: &Fact) -> BoxFuture<'static, Result<usize, BrokerError>> {
        let recording = self.publishers[0].query(self.fact_command(fact));
        async move {
            match recording.await? {
                Value::Int(lost) => Ok(usize::try_from(lost).unwrap_or_default()),
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    async fn lead(&self, within: Duration) -> Result<bool, BrokerError> {
        let mut lead = self.scripts.lead.on([&self.keys.events(LEADER)]);
        lead.arg(self.node.as_str()).arg(millis(within));
        Ok(self.publishers[0].query(lead).await? == Value::Int(1))
    }

    async fn events(&self, after: Option<&str>, most: usize) -> Result<Vec<Event>, BrokerError> {
        let mut read = redis::cmd("XRANGE");
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        read.arg(self.keys.events(STREAM)).arg(from).arg("+");
        read.arg("COUNT").arg(most);
        let rows = array(self.publishers[0].query(read).await?)?;
        Ok(rows.into_iter().filter_map(event).collect())
    }

    async fn waiting(&self) -> Result<usize, BrokerError> {
        let count = redis::cmd("XLEN").arg(self.keys.events(STREAM)).clone();
        match self.publishers[0].query(count).await? {
            Value::Int(waiting) => Ok(usize::try_from(waiting).unwrap_or_default()),
            _ => Err(unexpected()),
        }
    }

    async fn done(&self, event: &Event, dead: Option<&str>) -> Result<(), BrokerError> {
        if let Some(why) = dead {
            let mut keep = redis::cmd("XADD");
            keep.arg(self.keys.events(DEAD))
                .arg("MAXLEN")
                .arg(DEAD_LETTERS);
            keep.arg("*")
                .arg("why")
                .arg(why)
                .arg("kind")
                .arg(&event.kind);
            keep.arg("id")
                .arg(&event.id)
                .arg("at")
                .arg(millis_of(event.at));
            keep.arg("users")
                .arg(joined(&event.users))
                .arg("sessions")
                .arg(joined(&event.sessions));
            for (name, value) in &event.more {
                keep.arg(name).arg(value);
            }
            self.publishers[0].query(keep).await?;
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(self.keys.events(DEAD)).arg(millis(KEPT));
            self.publishers[0].query(expire).await?;
        }
        let mut remove = redis::cmd("XDEL");
        remove.arg(self.keys.events(STREAM)).arg(&event.place);
        self.publishers[0].query(remove).await.map(drop)
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, BrokerError> {
        let read = redis::cmd("SMEMBERS").arg(self.keys.events(NODES)).clone();
        let nodes = orphans::nodes(self.publishers[0].query(read).await?)?;
        let alive = self.read_nodes(&nodes).await?;
        if !alive.intact {
            return Ok(Vec::new());
        }
        let dead = nodes.into_iter().zip(alive.alive).find(|(_, alive)| !alive);
        let Some((node, _)) = dead else {
            return Ok(Vec::new());
        };
        let read = redis::cmd("HGETALL").arg(self.keys.opened(&node)).clone();
        let found = orphans::read(&node, self.publishers[0].query(read).await?)?;
        if found.is_empty() {
            let mut forget = redis::cmd("SREM");
            forget.arg(self.keys.events(NODES)).arg(node.as_str());
            self.publishers[0].query(forget).await?;
        }
        Ok(found)
    }

    async fn adopted(&self, orphan: &Orphan) -> Result<(), BrokerError> {
        let mut forget = redis::cmd("HDEL");
        forget.arg(self.keys.opened(&orphan.node));
        forget.arg(orphan.ended.session.to_string());
        for call in &orphan.calls {
            if let What::Call(call) = &call.what {
                forget.arg(Open::field(orphan.ended.session, call.with));
            }
        }
        self.publishers[0].query(forget).await.map(drop)
    }
}

/// The words of a fact, as `fact.lua` takes them.
struct Words {
    what: &'static str,
    field: String,
    users: String,
    sessions: String,
    id: String,
    reason: &'static str,
    /// The name of the key that remembers the end of the session, or the state of the call.
    of: String,
}

fn of_session(fact: &Fact) -> Words {
    let session = fact.session.to_string();
    let mut field = session.clone();
    let (what, reason, id) = match &fact.what {
        What::Started => ("session.started", "", "started"),
        What::Moved(with) => {
            for with in with {
                field = format!("{field} {}", Open::field(fact.session, *with));
            }
            ("session.moved", "", "")
        }
        What::Ended(reason) => ("session.ended", reason.as_str(), "ended"),
        What::Resumed | What::Call(_) => ("session.resumed", "", ""),
    };
    Words {
        what,
        field,
        users: fact.address.to_string(),
        id: format!("msg_session_{id}_{session}"),
        reason,
        of: session.clone(),
        sessions: session,
    }
}

fn of_call(fact: &Fact, call: &CallFact) -> Words {
    let (what, reason) = match call.what {
        CallNews::Started => ("call.started", ""),
        CallNews::Answered => ("call.answered", ""),
        CallNews::Connected(_) => ("call.connected", ""),
        CallNews::Here => ("call.here", ""),
        CallNews::Ended(reason) => ("call.ended", reason.as_str()),
    };
    let (own, peer) = (&fact.address, &fact.peer_address(call));
    // Who began it comes first.
    let [first, second] = if call.began {
        [(own, fact.session), (peer, call.with)]
    } else {
        [(peer, call.with), (own, fact.session)]
    };
    let [lesser, greater] = [fact.session.min(call.with), fact.session.max(call.with)];
    Words {
        what,
        field: Open::field(fact.session, call.with),
        users: format!("{} {}", first.0, second.0),
        sessions: format!("{} {}", first.1, second.1),
        id: call.id(fact.session),
        reason,
        of: format!("{lesser}:{greater}"),
    }
}

impl RedisBroker {
    fn fact_command(&self, fact: &Fact) -> Cmd {
        let call = match &fact.what {
            What::Call(call) => Some(call),
            _ => None,
        };
        let words = call.map_or_else(|| of_session(fact), |call| of_call(fact, call));
        let keys = [
            self.keys.events(STREAM),
            self.keys.events(NODES),
            self.keys.opened(&self.node),
            self.keys.happened(&words.of),
        ];
        let mut command = self.scripts.fact.with_capacity(&keys, 18, 1024);
        command
            .arg(words.what)
            .arg(self.node.as_str())
            .arg(fact.generation);
        command
            .arg(words.field)
            .arg(Open::text(fact))
            .arg(millis_of(fact.at));
        command
            .arg(words.users)
            .arg(words.sessions)
            .arg(words.id)
            .arg(words.reason);
        command
            .arg(millis(KEPT))
            .arg(millis(ENDS_KEPT))
            .arg(WAITING);
        if let Some(call) = call {
            let is_first = fact.session < call.with;
            let (own, other) = call.latest;
            let latest = if is_first { [own, other] } else { [other, own] };
            command.arg(if call.began == is_first { 1 } else { 2 });
            // Compared as text: numbers of Lua are exact only up to 2^53.
            for number in [call.n, latest[0], latest[1]] {
                command.arg(format!("{number:020}"));
            }
            command.arg(match call.what {
                CallNews::Connected(pair) => pair.as_str(),
                _ => "",
            });
        }
        command
    }
}

fn millis_of(at: SystemTime) -> i64 {
    millis(
        at.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn joined<T: ToString>(words: &[T]) -> String {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    words.join(" ")
}

/// `None` if the entry is none that this release knows.
fn event(row: Value) -> Option<Event> {
    let Value::Array(row) = row else { return None };
    let [Value::BulkString(place), Value::Array(fields)] = <[Value; 2]>::try_from(row).ok()? else {
        return None;
    };
    let mut event = Event {
        place: String::from_utf8(place).ok()?,
        id: String::new(),
        kind: String::new(),
        users: Vec::new(),
        sessions: Vec::new(),
        at: SystemTime::UNIX_EPOCH,
        more: Vec::new(),
    };
    let mut words = fields.into_iter().filter_map(|word| match word {
        Value::BulkString(word) => String::from_utf8(word).ok(),
        _ => None,
    });
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match name.as_str() {
            "kind" => event.kind = value,
            "id" => event.id = value,
            "users" => {
                event.users = value
                    .split(' ')
                    .filter_map(|user| user.parse().ok())
                    .collect();
            }
            "sessions" => {
                event.sessions = value.split(' ').filter_map(|id| id.parse().ok()).collect();
            }
            "at" => event.at += Duration::from_millis(value.parse().ok()?),
            _ => event.more.push((name, value)),
        }
    }
    Some(event)
}
