//! Runs script calls again that Redis did not execute, since it has forgotten the scripts (`SCRIPT FLUSH`).

use redis::aio::ConnectionLike as _;
use redis::{Cmd, Pipeline, RedisError, Value};

use deadpool_redis::Connection;

use super::diagnosis::{Reaction, reaction};
use super::scripts::Scripts;
use super::waiter::Waiter;

/// Loads the scripts, and replaces the replies of the calls that were not executed.
pub(super) async fn rerun(
    connection: &mut Connection,
    scripts: &Scripts,
    pipeline: &Pipeline,
    waiters: &[Waiter],
    replies: &mut [Value],
) -> Result<(), RedisError> {
    let places: Vec<usize> = (0..replies.len())
        .filter(|&place| is_unexecuted(&replies[place]))
        .filter(|&place| !is_overtaken(&waiters[place..], &replies[place..]))
        .collect();
    if places.is_empty() {
        return Ok(());
    }
    let mut again = scripts.load();
    let loads = again.len();
    let commands: Vec<&Cmd> = pipeline.cmd_iter().collect();
    for &place in &places {
        again.add_command(commands[place].clone());
    }
    let asking = connection.req_packed_commands(&again, loads, places.len());
    for (place, reply) in places.into_iter().zip(asking.await?) {
        replies[place] = reply;
    }
    Ok(())
}

fn is_unexecuted(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if reaction(error.code()) == Reaction::RunsAgain)
}

/// Whether something was published later to a receiver of this call: what runs again would arrive behind it. A command
/// that was executed may be the barrier of a receiver.
fn is_overtaken(waiters: &[Waiter], replies: &[Value]) -> bool {
    let Some((Waiter::Bundles(bundles), later)) = waiters.split_first() else {
        return false;
    };
    later
        .iter()
        .zip(&replies[1..])
        .any(|(waiter, reply)| match waiter {
            Waiter::Direct(direct, _) => bundles.iter().any(|bundle| bundle.to == direct.to),
            Waiter::Command(_) => !is_unexecuted(reply),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn what_a_barrier_has_overtaken_does_not_run_again() {
        let forgotten = || redis::parse_redis_value(b"-NOSCRIPT No matching script.\r\n").unwrap();
        let command = || Waiter::Command(oneshot::channel().0);
        let waiters = [Waiter::Bundles(Vec::new()), command()];
        assert!(is_overtaken(&waiters, &[forgotten(), Value::Int(1)]));
        assert!(!is_overtaken(&waiters, &[forgotten(), forgotten()]));
        assert!(
            !is_overtaken(&waiters[1..], &[forgotten()]),
            "a command keeps its order"
        );
    }
}
