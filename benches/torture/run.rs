//! One run: a cluster, its clients, the storm, the calm, the partings, the curtain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::bugs::{Bug, SCENARIO};
use crate::caller::{Caller, Part, finish};
use crate::checker::{Verdicts, judge};
use crate::cluster::{Cluster, GRACE, NODE_TTL, NODES, TTL};
use crate::diary::Diary;
use crate::extras;
use crate::faults::{self, Fault};
use crate::history::{Expectation, History, What};
use crate::link::Link;
use crate::monitor;
use crate::stage::{Act, Parting, Stage};

/// How long everybody may take to finish what is under way once all is healed.
const CALM_WITHIN: Duration = Duration::from_secs(12);
/// What a `leave` may take that is sent at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(2500);

/// What came of it.
pub(crate) struct Report {
    pub(crate) faults: Vec<String>,
    pub(crate) counts: String,
    pub(crate) verdicts: Verdicts,
    pub(crate) took: Duration,
}

struct Run {
    cluster: Cluster,
    history: Arc<History>,
    stage: Arc<Stage>,
    act: watch::Sender<Act>,
    parts: Vec<Part>,
}

/// Plays one seed, as it comes or as a bug's scenario.
pub(crate) async fn play(seed: u64, bug: Option<&Bug>) -> Outcome<Report> {
    let begun = Instant::now();
    let history = History::begin();
    let mut dice = StdRng::seed_from_u64(seed);
    let drawn = faults::draw(&mut dice);
    let drops_pushes = bug.map_or(rand::Rng::random_bool(&mut dice, 0.3), |bug| {
        bug.drops_pushes
    });
    let (faults, storm) = match bug {
        None => (drawn, faults::STORM),
        Some(bug) => (bug.faults(), SCENARIO),
    };
    let mut environment = Vec::new();
    // Only such a build reads them.
    if cfg!(feature = "seeded-bugs") {
        environment.extend(bug.map(|bug| ("SWITCHBOARD_BUG".to_owned(), bug.name.to_owned())));
        if drops_pushes {
            environment.push(("SWITCHBOARD_DROP_PUSHES".to_owned(), "30".to_owned()));
        }
    }
    let cluster = Cluster::start(&history, environment).await?;
    let parts = cast();
    let (act, playing) = watch::channel(Act::Storm);
    let stage = Stage::new(
        &history,
        cluster
            .places
            .iter()
            .map(|place| place.door.address)
            .collect(),
        playing,
        parts.iter().map(|part| part.name.clone()).collect(),
        seed,
    );
    let mut monitors = JoinSet::new();
    monitors.spawn(monitor::notice_stalls(Arc::clone(&history)));
    monitors.spawn(monitor::watch_keys(
        Arc::clone(&history),
        cluster.redis_follower(),
    ));
    for node in 0..NODES {
        monitors.spawn(monitor::watch_node(
            Arc::clone(&history),
            cluster.views(),
            node,
        ));
    }
    let mut run = Run {
        cluster,
        history,
        stage,
        act,
        parts,
    };
    run.play(&faults, storm, &mut dice).await?;
    monitors.abort_all();
    run.end().await?;
    let mut words: Vec<String> = faults.iter().map(Fault::to_string).collect();
    if drops_pushes {
        words.push("30 % of pushes dropped".into());
    }
    let record = run.history.lock();
    Ok(Report {
        faults: words,
        counts: counts(&record.events),
        verdicts: judge(&record),
        took: begun.elapsed(),
    })
}

/// Resumable pairs across nodes and on one; plain pairs that stay on one node, and across.
fn cast() -> Vec<Part> {
    let part = |kind: &str, number: usize, home: Option<usize>, first: usize| Part {
        name: format!("{kind}{number}"),
        peer: format!("{kind}{}", number ^ 1),
        resumable: kind == "r",
        calls: number.is_multiple_of(2),
        home,
        first,
    };
    let mut parts = Vec::new();
    for (number, first) in [0, 1, 1, 2, 2, 0, 0, 0, 1, 2].into_iter().enumerate() {
        parts.push(part("r", number, None, first));
    }
    for (number, home) in [0, 0, 1, 1].into_iter().enumerate() {
        parts.push(part("p", number, Some(home), home));
    }
    for (number, first) in [1, 2, 2, 0].into_iter().enumerate() {
        parts.push(part("p", number + 4, None, first));
    }
    parts
}

impl Run {
    async fn play(&mut self, faults: &[Fault], storm: Duration, dice: &mut StdRng) -> Outcome<()> {
        let mut callers = JoinSet::new();
        for part in &self.parts {
            callers.spawn(Caller::new(part.clone(), &self.stage).play());
        }
        let mut others = JoinSet::new();
        others.spawn(extras::watch(
            Arc::clone(&self.stage),
            self.stage.names.clone(),
        ));
        others.spawn(extras::covet(Arc::clone(&self.stage)));
        others.spawn(extras::want_more(Arc::clone(&self.stage)));
        others.spawn(extras::soil(Arc::clone(&self.stage)));
        let direct = self.direct(0)?;
        others.spawn(extras::flood(Arc::clone(&self.stage), 0, direct));

        faults::strike(&mut self.cluster, &self.history, faults, storm).await?;
        self.act.send_replace(Act::Calm);
        self.calm_down().await;
        self.part(dice).await?;
        self.cluster.look_after();
        self.let_in_again().await?;
        self.act.send_replace(Act::Curtain);
        finish(&mut callers, Duration::from_secs(4)).await;
        others.abort_all();
        Ok(())
    }

    fn direct(&self, node: usize) -> Outcome<SocketAddr> {
        let node = self.cluster.places[node].node.as_ref();
        Ok(node.ok_or("the node is gone")?.address)
    }

    /// Until everybody is connected, in a call, and waits for nothing.
    async fn calm_down(&self) {
        let begun = Instant::now();
        let mut calm_since = None;
        loop {
            let restless = self.restless();
            if restless.is_empty() {
                let since = *calm_since.get_or_insert_with(Instant::now);
                // What was acknowledged last may be on its way.
                if since.elapsed() > Duration::from_millis(1500) {
                    return;
                }
            } else {
                calm_since = None;
            }
            if begun.elapsed() > CALM_WITHIN {
                let words = format!(
                    "{CALM_WITHIN:?} after the last fault these were not back in their calls: {restless:?}"
                );
                return self.history.found(9, words);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn restless(&self) -> Vec<String> {
        let board = self.stage.board();
        let is_restless = |name: &&String| !board.idle.contains(*name);
        self.stage
            .names
            .iter()
            .filter(is_restless)
            .cloned()
            .collect()
    }

    /// One side of each call ends it, each in another way; then a node dies.
    async fn part(&mut self, dice: &mut StdRng) -> Outcome<()> {
        let mut pairs: Vec<(Part, Part)> = self
            .parts
            .chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect();
        pairs.shuffle(dice);
        let restless = self.restless();
        pairs.retain(|(one, other)| {
            !restless.contains(&one.name) && !restless.contains(&other.name)
        });
        let ways = [Parting::HangsUp, Parting::Closes, Parting::Vanishes];
        // Three of the resumable and two of the plain wait for the death of a node.
        let dying = self.dying(&pairs);
        let mut latest = Duration::ZERO;
        for (number, (goes, stays)) in pairs
            .iter()
            .filter(|(one, _)| !dying.contains(&one.name))
            .enumerate()
        {
            let way = ways[number % ways.len()];
            self.stage.board().partings.insert(goes.name.clone(), way);
            latest = latest.max(self.expect(goes, stays, way));
        }
        self.act.send_replace(Act::Partings);
        self.until_all_left(latest).await;
        self.die(&pairs, &dying).await
    }

    /// Callers of pairs that are apart, so that the death of one's node is heard by the other.
    fn dying(&self, pairs: &[(Part, Part)]) -> Vec<String> {
        let board = self.stage.board();
        let apart = pairs.iter().filter(|(one, other)| {
            let (here, there) = (board.at.get(&one.name), board.at.get(&other.name));
            here.is_some() && there.is_some() && here != there
        });
        let (resumable, plain): (Vec<_>, Vec<_>) = apart.partition(|(one, _)| one.resumable);
        let some = resumable.iter().take(3).chain(plain.iter().take(1));
        some.map(|(one, _)| one.name.clone()).collect()
    }

    fn expect(&self, goes: &Part, stays: &Part, way: Parting) -> Duration {
        let grace = if goes.resumable {
            GRACE
        } else {
            Duration::ZERO
        };
        let (within, reason, ending) = match way {
            Parting::HangsUp => (AT_ONCE, Some("hangup"), "hung up"),
            Parting::Closes => (AT_ONCE, Some("closed"), "closed"),
            Parting::Vanishes => (AT_ONCE + grace, None, "vanished"),
            Parting::DiesWithNode => {
                let noticed = NODE_TTL * 7 / 5 + AT_ONCE;
                (noticed + grace, None, "died with its node")
            }
        };
        self.history.lock().expectations.push(Expectation {
            who: stays.name.clone(),
            from: goes.name.clone(),
            since: self.history.now(),
            within,
            reason,
            ending,
        });
        within
    }

    /// Until each was heard, or is late; and a little longer, for a second one.
    async fn until_all_left(&self, latest: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < latest {
            {
                let record = self.history.lock();
                let is_heard = |expectation: &Expectation| {
                    let mut newest = record.events.iter().rev();
                    newest
                        .by_ref()
                        .take_while(|event| event.at >= expectation.since)
                        .any(|event| {
                            let left = matches!(&event.what, What::Left { from, .. } if *from == expectation.from);
                            left && *event.who == *expectation.who
                        })
                };
                if record.expectations.iter().all(is_heard) {
                    break;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
    }

    /// Kills the node of one of them; nobody who was there comes back.
    async fn die(&mut self, pairs: &[(Part, Part)], dying: &[String]) -> Outcome<()> {
        let mut latest = Duration::ZERO;
        let victim = {
            let mut board = self.stage.board();
            let at = |name: &String| board.at.get(name).copied();
            let Some(victim) = dying.iter().find_map(at) else {
                return Ok(());
            };
            let there = board.at.iter().filter(|(_, node)| **node == victim);
            let doomed: Vec<String> = there.map(|(name, _)| name.clone()).collect();
            board.doomed.extend(doomed);
            victim
        };
        let doomed = self.stage.board().doomed.clone();
        for (one, other) in pairs.iter().filter(|(one, _)| dying.contains(&one.name)) {
            let (goes, stays) = match (doomed.contains(&one.name), doomed.contains(&other.name)) {
                (true, false) => (one, other),
                (false, true) => (other, one),
                _ => continue,
            };
            latest = latest.max(self.expect(goes, stays, Parting::DiesWithNode));
        }
        self.cluster.kill(victim)?;
        self.until_all_left(latest).await;
        self.cluster.revive(victim).await
    }

    /// I11: each node lets somebody new in.
    async fn let_in_again(&self) -> Outcome<()> {
        for node in 0..NODES {
            let address = self.direct(node)?;
            let name = format!("fresh{node}");
            let diary = Diary::new(&self.history, &name);
            let begun = Instant::now();
            let mut said = None;
            let is_in = loop {
                if let Some(mut link) = Link::open(&diary, node, address).await {
                    let request = serde_json::json!({"type": "login", "name": name});
                    said = link.login(&request, Duration::from_secs(3)).await;
                    if said.as_ref().is_some_and(|said| said["success"] == true) {
                        link.close().await;
                        break true;
                    }
                }
                if begun.elapsed() > Duration::from_secs(5) {
                    break false;
                }
                sleep(Duration::from_millis(200)).await;
            };
            if !is_in {
                let words = format!("node {node} lets nobody new in: {said:?}");
                self.history.found(11, words);
            }
        }
        Ok(())
    }

    /// I10 and I6: nodes stop, and what they wrote about users ends.
    async fn end(&mut self) -> Outcome<()> {
        for node in 0..NODES {
            self.cluster.drain(node).await?;
        }
        let begun = Instant::now();
        loop {
            let address = self.cluster.redis_address();
            let (wrong, presences) = monitor::look_at_keys(address)
                .await
                .ok_or("Redis does not answer at the end")?;
            if let Some(first) = wrong.first() {
                let words = format!("after the end {first}, and {} more", wrong.len() - 1);
                self.history.found(6, words);
                return Ok(());
            }
            if presences == 0 {
                return Ok(());
            }
            if begun.elapsed() > TTL + Duration::from_secs(1) {
                let words = format!("{presences} presences outlive everybody");
                self.history.found(6, words);
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn counts(events: &[crate::history::Event]) -> String {
    let count =
        |is_meant: fn(&What) -> bool| events.iter().filter(|event| is_meant(&event.what)).count();
    format!(
        "{} signals sent, {} acked, {} refused, {} received; {} logins, {} resumes, {} resumes failed; {} leaves, {} connections closed, {} given up",
        count(|what| matches!(what, What::Sent { .. })),
        count(|what| matches!(what, What::Answered { outcome: Ok(_), .. })),
        count(|what| matches!(
            what,
            What::Answered {
                outcome: Err(_),
                ..
            }
        )),
        count(|what| matches!(what, What::Received(_))),
        count(|what| matches!(what, What::LoggedIn { resumed: false, .. })),
        count(|what| matches!(what, What::LoggedIn { resumed: true, .. })),
        count(|what| matches!(what, What::Refused { code, .. } if code == "resume_failed")),
        count(|what| matches!(what, What::Left { .. })),
        count(|what| matches!(what, What::Closed { .. })),
        count(|what| matches!(what, What::Abandoned)),
    )
}
