//! What each error of Redis means for the node, and what the operator reads.

use redis::{ErrorKind, RedisError, ServerError};

/// What the node does about an error. It never stops: a Redis that refuses now may serve later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The command was not executed; it runs again at once.
    RunsAgain,
    /// The connection is replaced: a new one may find the primary.
    Reconnects,
    /// The command fails. The node is unready while its probe fails too.
    Fails,
}

/// The errors with a remedy: the first word of Redis' reply, what the node does, and how to fix it.
const TABLE: &[(&str, Reaction, &str)] = &[
    (
        "NOSCRIPT",
        Reaction::RunsAgain,
        "Nothing to do: the node loads its scripts again",
    ),
    (
        "READONLY",
        Reaction::Reconnects,
        "redis.url names a replica: name the primary, or wait for its promotion",
    ),
    (
        "MASTERDOWN",
        Reaction::Reconnects,
        "redis.url names a replica that has lost its primary: name the primary",
    ),
    (
        "LOADING",
        Reaction::Reconnects,
        "Redis is loading its data: wait until it is done",
    ),
    (
        "NOAUTH",
        Reaction::Fails,
        "Redis wants a password: write redis.url as redis://USER:PASSWORD@HOST:6379, percent-encoded",
    ),
    (
        "WRONGPASS",
        Reaction::Fails,
        "Correct the user and the password in redis.url (percent-encoded)",
    ),
    (
        "NOPERM",
        Reaction::Fails,
        "Give the user of redis.url its rights with ACL SETUSER: docs/src/redis.md lists them",
    ),
    (
        "OOM",
        Reaction::Fails,
        "Redis is out of memory: raise its maxmemory, or remove other data from it",
    ),
    (
        "MISCONF",
        Reaction::Fails,
        "Redis cannot save to its disk and refuses writes: free the disk, or CONFIG SET stop-writes-on-bgsave-error no",
    ),
    (
        "BUSY",
        Reaction::Fails,
        "A script of another program blocks Redis: end it with SCRIPT KILL",
    ),
    (
        "NOREPLICAS",
        Reaction::Fails,
        "Redis has too few replicas to accept writes: start them, or lower its min-replicas-to-write",
    ),
    ("MOVED", Reaction::Fails, CLUSTER),
    ("ASK", Reaction::Fails, CLUSTER),
    ("CROSSSLOT", Reaction::Fails, CLUSTER),
    ("CLUSTERDOWN", Reaction::Fails, CLUSTER),
];

/// The remedy for a member of a Redis Cluster.
pub(super) const CLUSTER: &str = "redis.url names a member of a Redis Cluster, which has a part of the keys: name a \
    Redis without cluster mode";

/// The remedy for a Redis that gives no answer.
pub(super) const AWAY: &str = "Check that Redis runs and that redis.url is right";

/// What the node does about an error with this code.
pub(super) fn reaction(code: &str) -> Reaction {
    row(code).map_or(Reaction::Fails, |(_, reaction, _)| *reaction)
}

/// The error of a command, as Redis replied it.
pub(super) fn reply_text(error: &ServerError) -> String {
    text(error.code(), error.details())
}

/// Any error, as Redis replied it if it did.
pub(super) fn error_text(error: &RedisError) -> String {
    // Of a pipeline, the first error tells as much as all of them.
    let replies = error.clone().into_server_errors();
    if let Some((_, first)) = replies.as_deref().and_then(<[_]>::first) {
        return reply_text(first);
    }
    match error.code() {
        Some(code) => text(code, error.detail()),
        // The client library replaces this reply by a text of its own.
        None if error.kind() == ErrorKind::AuthenticationFailed => {
            text("WRONGPASS", Some(&error.to_string()))
        }
        None => error.to_string(),
    }
}

/// An error with its remedy: a sentence each.
pub(super) fn explain(error: &str) -> String {
    let code = error.split([' ', ':']).next().unwrap_or_default();
    let remedy = row(code).map_or(AWAY, |(_, _, remedy)| remedy);
    format!("{}. {remedy}", error.trim_end_matches('.'))
}

fn row(code: &str) -> Option<&'static (&'static str, Reaction, &'static str)> {
    TABLE.iter().find(|(known, _, _)| *known == code)
}

fn text(code: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{code} {detail}"),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_error_is_explained_by_its_own_row() {
        let told = "NOREPLICAS Not enough good replicas to write.";
        let explained = explain(told);
        assert!(
            explained
                .starts_with("NOREPLICAS Not enough good replicas to write. Redis has too few")
        );
        for (code, _, remedy) in TABLE {
            assert!(
                explain(&format!("{code} and more")).ends_with(remedy),
                "{code}"
            );
        }
        let refused = "Connection refused (os error 111)";
        assert_eq!(explain(refused), format!("{refused}. {AWAY}"));
    }
}
