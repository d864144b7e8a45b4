//! Calls between two nodes, and `kill -9` of the node of all who are called: which callers are told, and when.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use tokio::time::timeout_at;

use crate::Outcome;
use crate::client::Client;
use crate::scenario::Pair;
use crate::server::{Servers, Subject};

/// Twice what a resumable session and the lease of its node take.
const PATIENCE: Duration = Duration::from_secs(40);

/// The servers of one subject, and calls on them.
struct Ward {
    servers: Servers,
    calls: Vec<Pair>,
}

/// A table.
pub(crate) async fn run(subjects: &[Subject], pairs: usize) -> Outcome<String> {
    let told = subjects.iter().map(async |&subject| {
        let ward = Ward::set_up(subject, pairs).await?;
        ward.lose_a_node().await
    });
    let told = join_all(told).await;
    let mut table = format!(
        "### Death: {pairs} calls, and kill -9 of the node of all who are called\n\n\
         | server | callers that are told |\n| --- | --- |\n"
    );
    for (subject, told) in subjects.iter().zip(told) {
        let told = told.map_err(|error| format!("death, {}: {error}", subject.name()))?;
        let _ = writeln!(table, "| {} | {told} |", subject.name());
    }
    Ok(table)
}

impl Ward {
    async fn set_up(subject: Subject, pairs: usize) -> Outcome<Self> {
        let servers = subject.start().await?;
        let mut calls = Vec::with_capacity(pairs);
        for number in 0..pairs {
            let mut pair = Pair::login(&servers, subject, number).await?;
            pair.begin_call(subject).await?;
            calls.push(pair);
        }
        Ok(Self { servers, calls })
    }

    async fn lose_a_node(mut self) -> Outcome<String> {
        let mut nodes = self.servers.processes.iter().filter(|one| one.is_node);
        let last = nodes.next_back().ok_or("it has no node")?;
        Command::new("kill")
            .args(["-KILL", &last.pid.to_string()])
            .status()?;
        let killed = Instant::now();
        let is_only = nodes.next().is_none();
        let callers = self.calls.iter_mut().map(|pair| &mut pair.caller);
        let told = try_join_all(callers.map(|caller| told(caller, killed, is_only))).await?;

        let seconds: Vec<_> = told.iter().flatten().map(Duration::as_secs_f64).collect();
        let first = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let last = seconds.iter().copied().fold(0.0, f64::max);
        Ok(match (seconds.len(), is_only) {
            (0, _) => format!("none, within {} s", PATIENCE.as_secs()),
            (_, true) => "it is one process: all connections end".to_owned(),
            (some, _) => format!("{some} of {}, after {first:.1} to {last:.1} s", told.len()),
        })
    }
}

/// When a caller hears that the call has ended. Its connection ends only with the only process there is.
async fn told(caller: &mut Client, killed: Instant, is_only: bool) -> Outcome<Option<Duration>> {
    loop {
        match timeout_at((killed + PATIENCE).into(), caller.receive()).await {
            Err(_) => return Ok(None),
            Ok(Err(_)) if is_only => return Ok(Some(killed.elapsed())),
            Ok(Err(error)) => return Err(error),
            // In capitals where PeerJS is spoken.
            Ok(Ok(text)) if text.to_lowercase().contains(r#""type":"leave""#) => {
                return Ok(Some(killed.elapsed()));
            }
            // What may come before it, as that the call is in doubt.
            Ok(Ok(_)) => {}
        }
    }
}
