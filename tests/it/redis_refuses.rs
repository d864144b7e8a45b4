//! A Redis that refuses: the node is not ready, says what Redis said and what mends it, and serves once it is mended.

use redis::aio::MultiplexedConnection;
use testing::cluster::Backend;
use testing::ports::free_address;
use testing::redis_server::rights_of_a_node;
use testing::{Client, Cluster, Redis, eventually, http};

/// Runs commands on a connection that was made before Redis refuses others.
async fn run(connection: &mut MultiplexedConnection, commands: &[&str]) {
    for command in commands {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word.trim_matches('"'));
        }
        let _: redis::Value = command.query_async(connection).await.unwrap();
    }
}

/// A user of Redis with these rights, and the URL of a node that logs in as it.
fn user(redis: &Redis, rights: &str) -> (String, String) {
    let url = format!("redis://node:secret@{}", redis.address);
    (format!("ACL SETUSER node reset on >secret {rights}"), url)
}

async fn readyz(cluster: &Cluster) -> (u16, String) {
    let response = http::get(cluster.nodes[0].admin, "/readyz").await.unwrap();
    (response.status, response.body)
}

/// Waits until the node says that it is not ready, with all of these words.
async fn refuses(cluster: &Cluster, words: &[&str]) {
    let said = async || {
        let (status, text) = readyz(cluster).await;
        let all = words.iter().all(|word| text.contains(word));
        (status == 503 && all).then_some(())
    };
    eventually(&format!("not ready: {words:?}"), said).await;
}

/// Waits until the node is ready; two users can talk then.
async fn serves(cluster: &Cluster) {
    let is_ready = async || (readyz(cluster).await.0 == 200).then_some(());
    eventually("the node is ready", is_ready).await;
    let mut one = cluster.login(0, "one").await;
    let mut other = cluster.login_resumable(0, "other").await;
    one.call(&mut other).await;
}

/// A Redis that was spoilt by these commands, before a node comes; and again in order after others.
async fn is_told_and_mended(
    redis: Redis,
    url: &str,
    words: &[&str],
    spoil: &[&str],
    mend: &[&str],
) {
    let mut admin = redis.connection().await;
    run(&mut admin, spoil).await;
    let cluster = Cluster::with_redis(redis, 1, &[("redis.url", url)]);
    refuses(&cluster, words).await;
    run(&mut admin, mend).await;
    serves(&cluster).await;
}

/// A user without some rights gets them.
async fn lacks(rights: &str, words: &[&str]) {
    let redis = Redis::start().await;
    let ((spoil, url), (mend, _)) = (user(&redis, rights), user(&redis, &rights_of_a_node()));
    is_told_and_mended(redis, &url, words, &[&spoil], &[&mend]).await;
}

#[tokio::test]
async fn a_user_without_channels() {
    lacks("~sb:* +@all", &["NOPERM", "ACL SETUSER"]).await;
}

#[tokio::test]
async fn a_user_without_keys() {
    lacks("&sb:* +@all", &["NOPERM", "ACL SETUSER"]).await;
}

#[tokio::test]
async fn a_user_without_the_keys_of_this_prefix() {
    lacks("~other:* &sb:* +@all", &["NOPERM", "ACL SETUSER"]).await;
}

#[tokio::test]
async fn a_user_without_scripts() {
    lacks("~sb:* &sb:* +@all -@scripting", &["NOPERM", "ACL SETUSER"]).await;
}

#[tokio::test]
async fn a_user_without_info() {
    lacks("~sb:* &sb:* +@all -info", &["NOPERM", "info"]).await;
}

#[tokio::test]
async fn a_user_without_subscribe() {
    lacks("~sb:* &sb:* +@all -subscribe", &["NOPERM", "subscribe"]).await;
}

#[tokio::test]
async fn a_wrong_password() {
    let redis = Redis::start().await;
    let (mend, url) = user(&redis, &rights_of_a_node());
    let spoil = mend.replace("secret", "other");
    is_told_and_mended(
        redis,
        &url,
        &["WRONGPASS", "password in redis.url"],
        &[&spoil],
        &[&mend],
    )
    .await;
}

#[tokio::test]
async fn no_password() {
    let redis = Redis::start().await;
    let url = format!("redis://{}", redis.address);
    let (spoil, mend) = (
        "CONFIG SET requirepass secret",
        "CONFIG SET requirepass \"\"",
    );
    is_told_and_mended(
        redis,
        &url,
        &["NOAUTH", "redis://USER:PASSWORD@"],
        &[spoil],
        &[mend],
    )
    .await;
}

#[tokio::test]
async fn a_read_only_replica() {
    let (primary, replica) = (Redis::start().await, Redis::start().await);
    let url = replica.url();
    let (host, port) = (primary.address.ip(), primary.address.port());
    let spoil = format!("REPLICAOF {host} {port}");
    let words = &["READONLY", "name the primary"];
    is_told_and_mended(replica, &url, words, &[&spoil], &["REPLICAOF NO ONE"]).await;
}

#[tokio::test]
async fn a_replica_without_its_primary() {
    let redis = Redis::start().await;
    let url = redis.url();
    // Nobody listens on port 1.
    let spoil = [
        "CONFIG SET replica-serve-stale-data no",
        "REPLICAOF 127.0.0.1 1",
    ];
    is_told_and_mended(
        redis,
        &url,
        &["MASTERDOWN", "primary"],
        &spoil,
        &["REPLICAOF NO ONE"],
    )
    .await;
}

#[tokio::test]
async fn no_memory() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (spoil, mend) = ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0");
    is_told_and_mended(
        redis,
        &url,
        &["out of memory", "maxmemory"],
        &[spoil],
        &[mend],
    )
    .await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_written() {
    let redis = Redis::start().await;
    let (url, mut admin) = (redis.url(), redis.connection().await);
    let directory: Vec<String> = redis::cmd("CONFIG")
        .arg(&["GET", "dir"])
        .query_async(&mut admin)
        .await
        .unwrap();
    std::fs::remove_dir_all(&directory[1]).unwrap();
    let save = redis::cmd("CONFIG").arg(&["SET", "save", "3600 1"]).clone();
    let _: redis::Value = save.query_async(&mut admin).await.unwrap();
    run(&mut admin, &["SET key value", "BGSAVE"]).await;
    eventually("saving fails", async || {
        let info: String = redis::cmd("INFO")
            .query_async(&mut admin.clone())
            .await
            .unwrap();
        info.contains("rdb_last_bgsave_status:err").then_some(())
    })
    .await;
    let mend = "CONFIG SET stop-writes-on-bgsave-error no";
    is_told_and_mended(redis, &url, &["MISCONF", mend], &[], &[mend]).await;
}

#[tokio::test]
async fn too_few_replicas() {
    let redis = Redis::start().await;
    let url = redis.url();
    let set = |count| format!("CONFIG SET min-replicas-to-write {count}");
    let words = &["NOREPLICAS", "min-replicas-to-write"];
    is_told_and_mended(redis, &url, words, &[&set(1)], &[&set(0)]).await;
}

#[tokio::test]
async fn a_script_that_does_not_end() {
    let redis = Redis::start().await;
    let (url, mut blocked) = (redis.url(), redis.connection().await);
    let spoil = "CONFIG SET busy-reply-threshold 50";
    let mut admin = redis.connection().await;
    run(&mut admin, &[spoil]).await;
    let endless = tokio::spawn(async move {
        let mut script = redis::cmd("EVAL");
        script.arg("while true do end").arg(0);
        script.query_async::<redis::Value>(&mut blocked).await
    });
    eventually("Redis is busy", async || {
        let answer = redis::cmd("PING")
            .query_async::<redis::Value>(&mut admin.clone())
            .await;
        answer
            .is_err_and(|error| error.code() == Some("BUSY"))
            .then_some(())
    })
    .await;
    let cluster = Cluster::with_redis(redis, 1, &[("redis.url", &url)]);
    refuses(&cluster, &["BUSY", "SCRIPT KILL"]).await;
    run(&mut admin, &["SCRIPT KILL"]).await;
    assert!(endless.await.unwrap().is_err(), "the script was killed");
    serves(&cluster).await;
}

#[tokio::test]
async fn a_member_of_a_cluster() {
    let redis = Redis::start_with("--cluster-enabled yes").await.unwrap();
    let cluster = Cluster::with_redis(redis, 1, &[]);
    refuses(
        &cluster,
        &["member of a Redis Cluster", "without cluster mode"],
    )
    .await;
}

#[tokio::test]
async fn a_redis_that_comes_later_than_its_node() {
    let address = free_address().unwrap();
    let url = format!("redis://{address}");
    let mut cluster = Cluster::with_redis(Redis::start().await, 1, &[("redis.url", &url)]);
    refuses(&cluster, &["Connection refused", "Check that Redis runs"]).await;
    let redis = Redis::start_at(address, None).await.unwrap();
    cluster.backend = Backend::Redis(redis);
    serves(&cluster).await;
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_and_the_call_runs_again() {
    let cluster = Cluster::over_redis(2, &[]).await;
    let Backend::Redis(redis) = &cluster.backend else {
        unreachable!("it is over Redis");
    };
    let mut one = cluster.login(0, "one").await;
    let mut resumable = cluster.login_resumable(1, "resumable").await;
    let mut plain = cluster.login(1, "plain").await;
    for round in 0..20 {
        redis.ask("SCRIPT FLUSH").await;
        for to in ["resumable", "plain"] {
            let outcome = one.send_message(to, &format!("{to}{round}")).await;
            assert_eq!(outcome["status"], "delivered", "{outcome}");
        }
        resumable.receive().await;
        plain.receive().await;
        redis.ask("SCRIPT FLUSH").await;
        let mut other: Client = cluster.login(1, &format!("other{round}")).await;
        other.send_message("one", &format!("back{round}")).await;
        one.receive().await;
    }
}

#[tokio::test]
async fn settings_that_will_end_sessions_are_told() {
    let redis = Redis::start().await;
    redis.ask("CONFIG SET maxmemory-policy allkeys-lru").await;
    let cluster = Cluster::with_redis(redis, 1, &[]);
    eventually("the status warns", async || {
        let status = http::get(cluster.nodes[0].admin, "/status").await?.body;
        (status.contains("maxmemory-policy noeviction") && status.contains("appendonly yes"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_served_stays_ready_during_a_short_refusal() {
    let cluster = Cluster::over_redis(1, &[]).await;
    let Backend::Redis(redis) = &cluster.backend else {
        unreachable!("it is over Redis");
    };
    serves(&cluster).await;
    redis.ask("CONFIG SET maxmemory 1").await;
    let mut late = cluster.connect(0).await;
    let refused = late.try_login("late").await;
    assert_eq!(refused["code"], "unavailable", "{refused}");
    eventually("the status says why", async || {
        let status = http::get(cluster.nodes[0].admin, "/status").await?;
        status.body.contains("out of memory").then_some(())
    })
    .await;
    assert_eq!(readyz(&cluster).await.0, 200);
    redis.ask("CONFIG SET maxmemory 0").await;
    eventually("the login succeeds", async || {
        (late.try_login("late").await["success"] == true).then_some(())
    })
    .await;
}
