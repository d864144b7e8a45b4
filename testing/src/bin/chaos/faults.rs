//! The faults of a run: drawn from the seed, then injected in time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use tokio::time::sleep;

use crate::Outcome;
use crate::cluster::{Cluster, NODES};
use crate::history::{History, Kind};
use testing::proxy::{Mode, Proxy};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    Client,
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Blocks bytes to the server.
    There,
    /// Blocks bytes from the server.
    Back,
    /// Blocks bytes from the server, and resets the connections at the end, which loses those bytes.
    BackThenReset,
    HalfOpen,
    Reset,
    Late,
    Slow,
    Slice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    KillNode(usize),
    FreezeNode(usize),
    FreezeRedis,
    EmptyRedis,
    Promote,
    Cut(Edge, usize, Cut),
    KillSubscriptions,
    KillConnections,
    FlushAll,
    FlushScripts,
    RollingRestart,
}

/// One fault, its start and its duration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) what: What,
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f32(), self.lasts.as_secs_f32());
        write!(f, "{:?} at {at:.1} s for {lasts:.1} s", self.what)
    }
}

/// When the last fault ends.
pub(crate) const STORM: Duration = Duration::from_secs(22);
const FIRST: f32 = 2.0;
const LAST_BEGINS: f32 = 16.0;

/// Draws three to six faults, which may overlap.
pub(crate) fn draw(dice: &mut impl Rng) -> Vec<Fault> {
    let mut kinds: Vec<u8> = (0..13).collect();
    kinds.shuffle(dice);
    let mut faults: Vec<Fault> = kinds
        .into_iter()
        .take(dice.random_range(3..=6))
        .map(|kind| {
            let node = dice.random_range(0..NODES);
            let what = match kind {
                0 => What::KillNode(node),
                1 => What::FreezeNode(node),
                2 => What::FreezeRedis,
                3 => What::EmptyRedis,
                4 => What::Promote,
                5 | 6 => What::Cut(Edge::Client, node, any_cut(dice)),
                7 | 8 => What::Cut(Edge::Store, node, any_cut(dice)),
                9 => What::KillSubscriptions,
                10 => What::KillConnections,
                11 if dice.random() => What::FlushAll,
                11 => What::FlushScripts,
                _ => What::RollingRestart,
            };
            Fault {
                what,
                at: Duration::from_secs_f32(dice.random_range(FIRST..LAST_BEGINS)),
                lasts: Duration::from_secs_f32(dice.random_range(1.0..6.0)),
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn any_cut(dice: &mut impl Rng) -> Cut {
    let cuts = [
        Cut::There,
        Cut::Back,
        Cut::BackThenReset,
        Cut::HalfOpen,
        Cut::Reset,
        Cut::Late,
        Cut::Slow,
        Cut::Slice,
    ];
    cuts.choose(dice).copied().unwrap_or(Cut::Reset)
}

/// The start, repetition or end of a fault.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(What),
    End(What, Duration),
    /// Repeated while the fault lasts.
    Repeat(What),
}

/// Injects all faults in time, and heals everything at the end. Returns the faults that were skipped, since earlier
/// ones excluded them.
pub(crate) async fn strike(
    cluster: &mut Cluster,
    history: &History,
    faults: &[Fault],
    storm: Duration,
) -> Outcome<Vec<usize>> {
    let mut steps: BTreeMap<(Duration, usize), Step> = BTreeMap::new();
    for (number, fault) in faults.iter().enumerate() {
        let order = number * 1000;
        steps.insert((fault.at, order), Step::Begin(fault.what));
        steps.insert(
            (fault.at + fault.lasts, order + 999),
            Step::End(fault.what, fault.at),
        );
        let every = Duration::from_millis(if fault.what == What::FlushScripts {
            100
        } else {
            700
        });
        for turn in 1..u32::try_from(fault.lasts.as_millis() / every.as_millis())? {
            let order = order + usize::try_from(turn)?.min(998);
            steps.insert((fault.at + every * turn, order), Step::Repeat(fault.what));
        }
    }
    let begun = history.now();
    let mut skipped = Vec::new();
    for ((at, order), step) in steps {
        sleep((begun + at).saturating_sub(history.now())).await;
        cluster.look_after();
        match step {
            Step::Begin(what) if !may_begin(cluster, what) => skipped.push(order / 1000),
            _ if skipped.contains(&(order / 1000)) => {}
            Step::Begin(what) => start(cluster, what).await?,
            Step::Repeat(what) => repeat(cluster, what).await,
            Step::End(what, from) => end(cluster, history, what, begun + from).await?,
        }
    }
    sleep((begun + storm).saturating_sub(history.now())).await;
    cluster.look_after();
    cluster.heal().await?;
    Ok(skipped)
}

/// Whether a fault can be injected now: some exclude each other.
fn may_begin(cluster: &Cluster, what: What) -> bool {
    match what {
        What::KillNode(node) | What::FreezeNode(node) => {
            let others = (0..NODES).filter(|other| *other != node && cluster.is_well(*other));
            cluster.is_well(node) && others.count() > 0
        }
        What::FreezeRedis
        | What::EmptyRedis
        | What::KillSubscriptions
        | What::KillConnections
        | What::FlushAll
        | What::FlushScripts => cluster.redis_is_well(),
        What::Promote => cluster.redis_is_well() && cluster.link.is_some(),
        What::RollingRestart => (0..NODES).all(|node| cluster.is_well(node)),
        What::Cut(..) => true,
    }
}

async fn start(cluster: &mut Cluster, what: What) -> Outcome<()> {
    match what {
        What::KillNode(node) => cluster.kill(node)?,
        What::FreezeNode(node) => cluster.freeze(node)?,
        What::FreezeRedis => cluster.freeze_redis()?,
        What::EmptyRedis => cluster.kill_redis()?,
        What::Promote => {
            // From now on the replica gets no more writes.
            if let Some(link) = &cluster.link {
                link.set(Mode::Pass, Mode::Blackhole);
            }
        }
        What::Cut(edge, node, cut) => bend(proxy(cluster, edge, node), cut),
        What::KillSubscriptions | What::KillConnections | What::FlushScripts => {
            repeat(cluster, what).await;
        }
        What::FlushAll => cluster.tell_redis("FLUSHALL", Kind::DataLoss).await,
        What::RollingRestart => {
            for node in 0..NODES {
                cluster.drain(node).await?;
                // Without Redis it is started when Redis is back, or at the end.
                if cluster.redis_is_well() {
                    cluster.revive(node).await?;
                }
            }
        }
    }
    Ok(())
}

async fn repeat(cluster: &Cluster, what: What) {
    let words = match what {
        What::KillSubscriptions => "CLIENT KILL TYPE pubsub",
        What::KillConnections => "CLIENT KILL TYPE normal",
        What::FlushScripts => "SCRIPT FLUSH",
        _ => return,
    };
    if cluster.redis_is_well() {
        cluster.tell_redis(words, Kind::RedisCut).await;
    }
}

async fn end(cluster: &mut Cluster, history: &History, what: What, since: Duration) -> Outcome<()> {
    match what {
        What::KillNode(node) if cluster.redis_is_well() => {
            cluster.revive(node).await?;
        }
        What::FreezeNode(node) => cluster.thaw(node)?,
        What::FreezeRedis => cluster.thaw_redis()?,
        What::EmptyRedis => cluster.restart_redis().await?,
        What::Promote => cluster.promote(since).await?,
        What::Cut(edge, node, cut) => {
            let proxy = proxy(cluster, edge, node);
            if matches!(cut, Cut::BackThenReset | Cut::HalfOpen) {
                // Bytes are missing in the middle of the stream, so the connections are useless.
                proxy.cut();
            }
            proxy.set(Mode::Pass, Mode::Pass);
            let kind = match edge {
                Edge::Client => Kind::ClientEdge,
                Edge::Store => Kind::RedisEdge,
            };
            history.trouble(kind, Some(node), since);
        }
        _ => {}
    }
    Ok(())
}

fn proxy(cluster: &Cluster, edge: Edge, node: usize) -> &Proxy {
    match edge {
        Edge::Client => &cluster.places[node].door,
        Edge::Store => &cluster.places[node].store,
    }
}

fn bend(proxy: &Proxy, cut: Cut) {
    let late = Mode::Late(Duration::from_millis(60), Duration::from_millis(120));
    match cut {
        Cut::There => proxy.set(Mode::Blackhole, Mode::Pass),
        Cut::Back | Cut::BackThenReset => proxy.set(Mode::Pass, Mode::Blackhole),
        Cut::HalfOpen => proxy.set(Mode::Swallow, Mode::Swallow),
        Cut::Reset => proxy.cut(),
        Cut::Late => proxy.set(late, late),
        Cut::Slow => proxy.set(Mode::Rate(40_000), Mode::Rate(40_000)),
        Cut::Slice => proxy.set(Mode::Slice, Mode::Slice),
    }
}
