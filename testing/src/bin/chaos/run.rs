//! One run: a cluster and its clients, through all phases.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::auxiliary;
use crate::bugs::{Bug, SCENARIO};
use crate::caller::{Caller, Part, finish};
use crate::checker::{Verdicts, judge};
use crate::client_state::ClientState;
use crate::cluster::{Cluster, NODES, TTL};
use crate::faults::{self, Fault};
use crate::history::{History, Kind, What};
use crate::link::Link;
use crate::monitor;
use crate::shared::{Phase, Shared};
use crate::streams;
use testing::redis_server::ask;

/// How long clients may take to finish pending signals once all faults are healed.
const CALM_WITHIN: Duration = Duration::from_secs(12);

/// The result of a run.
pub(crate) struct Report {
    pub(crate) faults: Vec<String>,
    pub(crate) counts: String,
    pub(crate) verdicts: Verdicts,
    /// The whole history, as text.
    pub(crate) history: String,
    pub(crate) took: Duration,
}

pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) history: Arc<History>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) parts: Vec<Part>,
}

/// Runs one seed: with random faults, or with the scenario of a bug.
pub(crate) async fn play(seed: u64, bug: Option<&Bug>) -> Outcome<Report> {
    let begun = Instant::now();
    let history = History::begin();
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = Plan::draw(&mut rng, bug);
    let cluster = Cluster::start(&history, plan.environment(bug)).await?;
    let parts = cast();
    let (phase, playing) = watch::channel(Phase::Faults);
    let shared = Shared::new(
        &history,
        cluster
            .places
            .iter()
            .map(|place| place.front.address)
            .collect(),
        playing,
        parts.iter().map(|part| part.name.clone()).collect(),
        seed,
    );
    let mut monitors = start_monitors(&history, &cluster);
    let mut run = Run {
        cluster,
        history,
        shared,
        phase,
        parts,
    };
    let skipped = run.play(&plan.faults, plan.duration, &mut rng).await?;
    monitors.abort_all();
    run.end().await?;
    if plan.drops_pushes {
        run.history
            .trouble(Kind::PushesDropped, None, Duration::ZERO);
    }
    let record = run.history.lock();
    Ok(Report {
        faults: plan.words(&skipped),
        counts: counts(&record.events),
        verdicts: judge(&record),
        history: record.to_text(),
        took: begun.elapsed(),
    })
}

/// What is done to the cluster of a run.
struct Plan {
    faults: Vec<Fault>,
    /// How long the phase of faults lasts.
    duration: Duration,
    /// Whether nodes drop 30 % of pushes all the time.
    drops_pushes: bool,
}

impl Plan {
    /// The scenario of a bug, or random faults. Draws in any case, so that all that is drawn later depends on the seed
    /// alone.
    fn draw(rng: &mut StdRng, bug: Option<&Bug>) -> Self {
        let drawn = faults::draw(rng);
        let drawn_drops = rand::Rng::random_bool(rng, 0.3);
        // Only a build with the feature can drop pushes.
        let drops_pushes =
            cfg!(feature = "seeded-bugs") && bug.map_or(drawn_drops, |bug| bug.drops_pushes);
        let (faults, duration) = match bug {
            None => (drawn, faults::STORM),
            Some(bug) => (bug.faults(), SCENARIO),
        };
        Self {
            faults,
            duration,
            drops_pushes,
        }
    }

    fn environment(&self, bug: Option<&Bug>) -> Vec<(String, String)> {
        let mut environment = Vec::new();
        // Only a build with the feature reads these variables.
        if cfg!(feature = "seeded-bugs") {
            environment.extend(bug.map(|bug| ("SWITCHBOARD_BUG".to_owned(), bug.name.to_owned())));
            if self.drops_pushes {
                environment.push(("SWITCHBOARD_DROP_PUSHES".to_owned(), "30".to_owned()));
            }
        }
        environment
    }

    /// The faults as text; `skipped` are the indices of those that were not injected.
    fn words(&self, skipped: &[usize]) -> Vec<String> {
        let words = |(number, fault): (usize, &Fault)| {
            if skipped.contains(&number) {
                format!("({fault}: skipped)")
            } else {
                fault.to_string()
            }
        };
        let mut words: Vec<String> = self.faults.iter().enumerate().map(words).collect();
        if self.drops_pushes {
            words.push("30 % of pushes dropped".into());
        }
        words
    }
}

fn start_monitors(history: &Arc<History>, cluster: &Cluster) -> JoinSet<()> {
    let mut monitors = JoinSet::new();
    monitors.spawn(monitor::notice_stalls(Arc::clone(history)));
    let keys = monitor::watch_keys(Arc::clone(history), cluster.redis_follower());
    monitors.spawn(keys);
    for node in 0..NODES {
        let watch = monitor::watch_node(Arc::clone(history), cluster.views(), node);
        monitors.spawn(watch);
    }
    monitors
}

/// Resumable pairs across nodes and on one node; plain pairs on one node and across nodes.
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
    async fn play(
        &mut self,
        faults: &[Fault],
        storm: Duration,
        rng: &mut StdRng,
    ) -> Outcome<Vec<usize>> {
        let mut callers = JoinSet::new();
        for part in &self.parts {
            callers.spawn(Caller::new(part.clone(), &self.shared).play());
        }
        let mut others = JoinSet::new();
        others.spawn(auxiliary::watch(
            Arc::clone(&self.shared),
            self.shared.names.clone(),
        ));
        others.spawn(auxiliary::covet(Arc::clone(&self.shared)));
        others.spawn(auxiliary::want_more(Arc::clone(&self.shared)));
        others.spawn(auxiliary::soil(Arc::clone(&self.shared)));
        others.spawn(streams::stream(Arc::clone(&self.shared)));
        let direct = self.direct(0)?;
        others.spawn(auxiliary::flood(Arc::clone(&self.shared), 0, direct));

        let skipped = faults::strike(&mut self.cluster, &self.history, faults, storm).await?;
        self.phase.send_replace(Phase::Calm);
        self.calm_down().await;
        self.part(rng).await?;
        self.cluster.remove_ended();
        self.let_in_again().await?;
        self.phase.send_replace(Phase::Closing);
        finish(&mut callers, Duration::from_secs(4)).await;
        others.abort_all();
        Ok(skipped)
    }

    fn direct(&self, node: usize) -> Outcome<SocketAddr> {
        let node = self.cluster.places[node].node.as_ref();
        Ok(node.ok_or("the node is gone")?.address)
    }

    /// Waits until all clients are connected, in a call, and have nothing pending.
    async fn calm_down(&self) {
        let begun = Instant::now();
        let mut calm_since = None;
        loop {
            let restless = self.restless();
            if restless.is_empty() {
                let since = *calm_since.get_or_insert_with(Instant::now);
                // The last acknowledged signals may still be in flight.
                if since.elapsed() > Duration::from_millis(1500) {
                    return;
                }
            } else {
                calm_since = None;
            }
            if begun.elapsed() > CALM_WITHIN {
                let stored = self.stored(&restless).await;
                let words = format!(
                    "{CALM_WITHIN:?} after the last fault these were not back in their calls: {restless:?}; {stored}"
                );
                return self.history.found(9, words);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The keys of these clients and their peers in Redis, to find the cause.
    async fn stored(&self, names: &[String]) -> String {
        let mut said = Vec::new();
        let meant = |part: &&Part| names.contains(&part.name) || names.contains(&part.peer);
        for part in self.parts.iter().filter(meant) {
            let name = &part.name;
            for words in ["GET sb:p:", "XLEN sb:i:", "HGETALL sb:s:"] {
                let words = format!("{words}{{/{name}}}");
                let answer = ask(self.cluster.redis_address, &words).await;
                said.push(format!("{words} = {answer:?}"));
            }
        }
        said.join("; ")
    }

    pub(crate) fn restless(&self) -> Vec<String> {
        let clients = self.shared.clients();
        let is_restless = |name: &&String| !clients.idle.contains(*name);
        let streamer = streams::NAME.to_owned();
        let names = self.shared.names.iter().chain([&streamer]);
        names.filter(is_restless).cloned().collect()
    }

    /// I11: each node accepts a new client.
    async fn let_in_again(&self) -> Outcome<()> {
        for node in 0..NODES {
            let address = self.direct(node)?;
            let name = format!("fresh{node}");
            let client_state = ClientState::new(&self.history, &name);
            let begun = Instant::now();
            let mut said = None;
            let is_in = loop {
                if let Some(mut link) = Link::open(&client_state, node, address).await {
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
                let words = format!("node {node} accepts no new client: {said:?}");
                self.history.found(11, words);
            }
        }
        Ok(())
    }

    /// I10 and I6: nodes drain, and the keys of their users expire.
    async fn end(&mut self) -> Outcome<()> {
        for node in 0..NODES {
            self.cluster.drain(node).await?;
        }
        let begun = Instant::now();
        loop {
            let address = self.cluster.redis_address;
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
                let words = format!("{presences} presence keys outlive all sessions");
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
        "{} signals sent, {} acked, {} refused, {} received; {} logins, {} resumes, {} resumes failed; \
         {} leaves, {} connections closed, {} given up",
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
