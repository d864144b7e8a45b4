//! The course of a run: all sessions log in, half of them exchange signals, a node is killed, its sessions resume.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::cluster::{Cluster, check};
use crate::crew::Crew;
use crate::gauge::{Gauge, Usage};
use crate::session::TALK_EVERY;
use crate::wire::{Micros, Stage, Tally};

/// The smallest number of sessions with which every node has a call.
pub(crate) const FEWEST: usize = 24;
const LOGIN_WITHIN: Duration = Duration::from_mins(3);
/// Long enough for all calls to begin and to exchange signals.
const CALM: Duration = Duration::from_secs(18);
/// Long enough for signals in every call, and for leaves from the dead node, which must not come.
const AFTERMATH: Duration = Duration::from_secs(15);
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The size of a run, and its limit.
pub(crate) struct Load {
    pub(crate) sessions: usize,
    pub(crate) resume_within: Duration,
}

/// The results of a run.
pub(crate) struct Measured {
    pub(crate) at_risk: usize,
    /// Seconds from the kill until each was resumed, in order.
    pub(crate) resumed: Vec<f64>,
    pub(crate) leaves: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) redis: Usage,
    /// One for each surviving node.
    pub(crate) survivors: Vec<Usage>,
    pub(crate) generator: Usage,
    /// Memory of all nodes per session before the kill, in KiB.
    pub(crate) kib_each: f64,
    /// The same of the survivors after all sessions have resumed.
    pub(crate) kib_each_after: f64,
    pub(crate) logins_per_second: f64,
}

pub(crate) fn run(load: &Load) -> Outcome<Measured> {
    let files = check(load.sessions)?;
    let starting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut cluster = starting.block_on(Cluster::start(files))?;
    let nodes_kib: Vec<f64> = cluster.resident_kib()?;
    let mut crew = Crew::start(load.sessions, &cluster.endpoints(), files)?;

    let logins_per_second = log_in(&mut crew, load.sessions)?;
    let (at_risk, calls) = (crew.at_risk(), crew.calls());
    eprintln!("{calls} calls begin");
    crew.order(Stage::Calling)?;
    crew.listen(Instant::now() + CALM, |_| false)?;
    let before = crew.order_tally(Stage::Braced)?;
    if before.calls != calls || before.signals == 0 {
        return Err(format!("{calls} calls should have begun by now: {before:?}").into());
    }
    let kib_each = added(&cluster, &nodes_kib)? / load.sessions as f64;

    let (killed_at, gauge) = storm(&mut cluster, &mut crew, load.resume_within)?;
    let in_time = crew.resumed.len();
    eprintln!("{in_time} of {at_risk} are back; watching what they hear");
    crew.listen(Instant::now() + AFTERMATH.max(TALK_EVERY), |_| false)?;
    let kib_each_after = added(&cluster, &nodes_kib)? / load.sessions as f64;
    let tally = crew.order_tally(Stage::Over)?;

    crew.resumed.truncate(in_time);
    let mut resumed: Vec<f64> = crew
        .resumed
        .iter()
        .map(|at| at.seconds_since(killed_at))
        .collect();
    resumed.sort_by(f64::total_cmp);
    let [redis, generator, survivors @ ..] = &gauge.usage()[..] else {
        return Err("nothing was measured".into());
    };
    Ok(Measured {
        at_risk,
        resumed,
        leaves: crew.leaves,
        tally,
        redis: *redis,
        survivors: survivors.to_vec(),
        generator: *generator,
        kib_each,
        kib_each_after,
        logins_per_second,
    })
}

/// Waits until all sessions are logged in; the logins per second.
fn log_in(crew: &mut Crew, sessions: usize) -> Outcome<f64> {
    let begun = Instant::now();
    while crew.logged_in < sessions {
        let all = |crew: &Crew| crew.logged_in == sessions;
        crew.listen(Instant::now() + PROGRESS_EVERY, all)?;
        eprintln!("{} of {sessions} are logged in", crew.logged_in);
        if begun.elapsed() > LOGIN_WITHIN {
            return Err(format!("logging in takes more than {LOGIN_WITHIN:?}").into());
        }
    }
    Ok(sessions as f64 / begun.elapsed().as_secs_f64())
}

/// Kills a node and samples until all its sessions have resumed or the time is over.
fn storm(cluster: &mut Cluster, crew: &mut Crew, within: Duration) -> Outcome<(Micros, Gauge)> {
    let at_risk = crew.at_risk();
    let mut groups = vec![vec![cluster.redis_pid()], crew.pids()];
    groups.extend(cluster.survivor_pids().into_iter().map(|pid| vec![pid]));

    eprintln!("killing a node with {at_risk} sessions");
    let mut gauge = Gauge::start(groups)?;
    let (killed_at, begun) = (Micros::now(), Instant::now());
    cluster.kill_one();
    let mut shown = begun;
    loop {
        let until = (Instant::now() + SAMPLE_EVERY).min(begun + within);
        let all_back = crew.listen(until, |crew| crew.resumed.len() == at_risk)?;
        gauge.sample()?;
        let is_over = all_back || begun.elapsed() >= within;
        if is_over || shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            let seconds = begun.elapsed().as_secs_f64();
            eprintln!(
                "{seconds:.1} s: {} of {at_risk} are back",
                crew.resumed.len()
            );
        }
        if is_over {
            return Ok((killed_at, gauge));
        }
    }
}

/// The growth of the living nodes' memory since their start, in KiB.
fn added(cluster: &Cluster, at_start: &[f64]) -> Outcome<f64> {
    let now = cluster.resident_kib()?;
    Ok(now.iter().zip(at_start).map(|(now, then)| now - then).sum())
}
