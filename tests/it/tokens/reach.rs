//! What a token lets its owner do: whom to call, in which realm, how much.

use serde_json::json;
use testing::{Cluster, eventually};

use super::{login, required, token, try_login};

#[tokio::test]
async fn a_token_names_whom_its_owner_may_call() {
    let cluster = Cluster::over_redis(2, &required()).await;
    let mut alice = login(&cluster, 0, "alice", json!({"call": ["bob", "team-*"]})).await;
    let mut bob = login(&cluster, 1, "bob", json!({"call": []})).await;
    let mut mallory = login(&cluster, 1, "mallory", json!({})).await;
    for (name, code) in [
        ("mallory", "forbidden"),
        ("nobody", "forbidden"),
        ("team-x", "user_unavailable"),
    ] {
        alice
            .send(&json!({"type": "offer", "name": name, "offer": 1, "id": name}))
            .await;
        let error = alice.receive().await;
        assert_eq!(
            (&error["code"], &error["id"]),
            (&json!(code), &json!(name)),
            "{error}"
        );
    }
    mallory.expect_silence().await;
    // Bob may call nobody, and may answer whoever calls him.
    bob.send(&json!({"type": "offer", "name": "alice", "offer": 1, "id": 1}))
        .await;
    assert_eq!(bob.receive().await["code"], "forbidden");
    alice.call(&mut bob).await;
    bob.send(&json!({"type": "candidate", "name": "alice", "candidate": 1}))
        .await;
    assert_eq!(alice.receive().await["candidate"], 1);
    bob.send(&json!({"type": "leave", "name": "alice"})).await;
    assert_eq!(alice.receive().await["type"], "leave");
    bob.send(&json!({"type": "message", "name": "alice", "message": 1}))
        .await;
    assert_eq!(bob.receive().await["code"], "forbidden", "the call is over");
}

#[tokio::test]
async fn nothing_is_told_of_those_whom_one_may_not_call() {
    let cluster = Cluster::over_redis(
        2,
        &[&required()[..], &[("presence.watch_every", "100ms")]].concat(),
    )
    .await;
    let mut alice = login(&cluster, 0, "alice", json!({"call": ["bob"]})).await;
    let _mallory = login(&cluster, 1, "mallory", json!({})).await;
    let watch = json!({"type": "presence", "names": ["bob", "mallory", "carol"], "watch": true});
    alice.send(&watch).await;
    let presence = alice.receive().await;
    assert_eq!(
        presence["users"],
        json!({"bob": false, "mallory": false, "carol": false})
    );
    let _carol = login(&cluster, 1, "carol", json!({})).await;
    let _bob = login(&cluster, 1, "bob", json!({})).await;
    assert_eq!(alice.receive().await["users"], json!({"bob": true}));
    alice.expect_silence().await;
}

#[tokio::test]
async fn realms_are_apart() {
    let cluster = Cluster::over_redis(2, &required()).await;
    let mut one = login(&cluster, 0, "alice", json!({"realm": "one"})).await;
    let mut two = login(&cluster, 1, "alice", json!({"realm": "two"})).await;
    let mut none = login(&cluster, 1, "alice", json!({})).await;
    let mut bob = login(&cluster, 1, "bob", json!({"realm": "one"})).await;
    bob.send(&json!({"type": "message", "name": "alice", "message": 1}))
        .await;
    assert_eq!(one.receive().await["name"], "bob");
    two.expect_silence().await;
    none.expect_silence().await;
    let mut client = cluster.connect(0).await;
    let reply = try_login(
        &mut client,
        "alice",
        &token("alice", json!({"realm": "peerjs:peerjs"})),
    )
    .await;
    assert_eq!(reply["code"], "forbidden", "{reply}");
}

#[tokio::test]
async fn a_token_sets_its_owners_limits() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let limits = json!({"limits": {"signals_per_second": 2, "connections": 1}});
    let mut alice = login(&cluster, 0, "alice", limits.clone()).await;
    for _ in 0..5 {
        alice.send(&json!({"type": "ping"})).await;
    }
    let mut refused = 0;
    for _ in 0..5 {
        refused += u32::from(alice.receive().await["code"] == "rate_limited");
    }
    assert_eq!(refused, 1, "a burst is two seconds' worth");

    let limits = json!({"sub": "many-*", "limits": {"connections": 2}});
    let jwt = token("many-*", limits);
    let mut open = Vec::new();
    for (name, fits) in [("many-1", true), ("many-2", true), ("many-3", false)] {
        let mut client = cluster.connect(0).await;
        let reply = try_login(&mut client, name, &jwt).await;
        assert_eq!(reply["success"], fits, "{reply}");
        open.push(client);
    }
    open.remove(0).close().await;
    testing::eventually("another may come", async || {
        let reply = try_login(&mut open[1], "many-3", &jwt).await;
        (reply["success"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_sessions_of_a_user_are_limited() {
    let settings = [&required()[..], &[("limits.sessions_per_user", "2")]].concat();
    let cluster = Cluster::in_memory(2, &settings).await;
    let code = async |node: usize, name: &str, jwt: &str| {
        let mut client = cluster.connect(node).await;
        let reply = try_login(&mut client, name, jwt).await;
        (client, reply["code"].clone())
    };
    let jwt = token("many-*", json!({}));
    let mut open = Vec::new();
    for (name, said) in [
        ("many-1", json!(null)),
        ("many-2", json!(null)),
        ("many-3", json!("too_many")),
    ] {
        let (client, code) = code(0, name, &jwt).await;
        assert_eq!(code, said, "{name}");
        open.push(client);
    }
    // At another node, for somebody else, and with a token that says otherwise.
    let more = token("many-*", json!({"limits": {"connections": 3}}));
    for (node, name, jwt) in [
        (1, "many-3", &jwt),
        (0, "one", &token("one", json!({}))),
        (0, "many-4", &more),
    ] {
        let (client, code) = code(node, name, jwt).await;
        assert_eq!(code, json!(null), "{name}");
        open.push(client);
    }
    // A session that is resumed replaces its own connection, whether or not that was seen to be lost.
    let two = token("two-*", json!({}));
    let mut login = json!({"type": "login", "name": "two-1", "token": two, "resumable": true});
    let mut first = cluster.connect(0).await;
    first.send(&login).await;
    login["resume"] = first.receive().await["resume"].clone();
    open.push(code(0, "two-2", &two).await.0);
    assert_eq!(code(0, "two-3", &two).await.1, "too_many");
    let mut second = cluster.connect(0).await;
    second.send(&login).await;
    assert_eq!(second.receive().await["resumed"], true);
    assert_eq!(first.closed().await, Some(4000));
    second.disconnect();
    testing::eventually("a parked session is no connection", async || {
        let (client, code) = code(0, "two-3", &two).await;
        code.is_null().then_some(client)
    })
    .await;
}

#[tokio::test]
async fn whoever_comes_back_under_the_same_name_is_not_too_many() {
    let cluster = Cluster::in_memory(1, &required()).await;
    let alone = json!({"limits": {"connections": 1}});
    let first = login(&cluster, 0, "solo", alone.clone()).await;
    // The host has vanished without a FIN, which the server has not noticed.
    let _silent = first.stop_reading();
    let mut second = login(&cluster, 0, "solo", alone).await;
    second.expect_silence().await;
}

#[tokio::test]
async fn a_token_names_who_may_call_its_owner() {
    let settings = [&required()[..], &[("presence.watch_every", "100ms")]].concat();
    let cluster = Cluster::over_redis(2, &settings).await;
    let mut alice = login(&cluster, 0, "alice", json!({})).await;
    let mut mallory = login(&cluster, 0, "mallory", json!({})).await;
    for (node, resumable) in [(0, false), (1, false), (0, true), (1, true)] {
        let name = format!("bob-{node}-{resumable}");
        let watch = json!({"type": "presence", "names": [name], "watch": true});
        alice.send(&watch).await;
        mallory.send(&watch).await;
        let nobody = json!({"type": "presence", "users": {&name: false}});
        assert_eq!(alice.receive().await, nobody);
        assert_eq!(mallory.receive().await, nobody);
        let mut bob = cluster.connect(node).await;
        let jwt = token(&name, json!({"callable_by": ["carol", "ali*"]}));
        let login = json!({"type": "login", "name": name, "token": jwt, "resumable": resumable});
        bob.send(&login).await;
        assert_eq!(bob.receive().await["success"], true);
        bob.name.clone_from(&name);
        assert_eq!(alice.receive().await["users"], json!({&name: true}));
        for kind in ["offer", "message", "candidate"] {
            mallory
                .send(&json!({"type": kind, "name": name, kind: 1, "id": kind}))
                .await;
            let error = mallory.receive().await;
            assert_eq!(
                (&error["code"], &error["id"]),
                (&json!("forbidden"), &json!(kind)),
                "{error}"
            );
        }
        bob.expect_silence().await;
        alice.call(&mut bob).await;
        // Whom Bob calls may answer, until the call is over.
        bob.call(&mut mallory).await;
        mallory
            .send(&json!({"type": "candidate", "name": name, "candidate": 1, "id": 1}))
            .await;
        assert_eq!(mallory.receive().await["status"], "delivered");
        assert_eq!(bob.receive_type("candidate").await["name"], "mallory");
        mallory.send(&json!({"type": "leave", "name": name})).await;
        assert_eq!(bob.receive_type("leave").await["name"], "mallory");
        mallory
            .send(&json!({"type": "message", "name": name, "message": 1, "id": 2}))
            .await;
        assert_eq!(mallory.receive().await["code"], "forbidden");
        bob.close().await;
        assert_eq!(
            alice.receive_type("presence").await["users"],
            json!({&name: false})
        );
        // Those whom he has named learn that he is gone, and nobody else.
        for (user, code) in [
            (&mut alice, "user_unavailable"),
            (&mut mallory, "forbidden"),
        ] {
            user.send(&json!({"type": "offer", "name": name, "offer": 1, "id": 3}))
                .await;
            assert_eq!(user.receive().await["code"], code);
        }
    }
    mallory.expect_silence().await;
}

#[tokio::test]
async fn a_new_session_forgets_who_could_call_the_one_before() {
    for cluster in [
        Cluster::in_memory(2, &required()).await,
        Cluster::over_redis(2, &required()).await,
    ] {
        let mut alice = login(&cluster, 0, "alice", json!({})).await;
        let mut mallory = login(&cluster, 0, "mallory", json!({})).await;
        for (others, code) in [
            (json!({"callable_by": ["alice"]}), "forbidden"),
            (json!({}), "user_unavailable"),
        ] {
            login(&cluster, 1, "bob", others).await.close().await;
            eventually("bob is gone", async || {
                let answer = alice.send_message("bob", "are you there?").await;
                (answer["code"] == "user_unavailable").then_some(())
            })
            .await;
            let answer = mallory.send_message("bob", "are you there?").await;
            assert_eq!(answer["code"], code, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_resume_brings_who_may_call_from_then_on() {
    let cluster = Cluster::over_redis(2, &required()).await;
    let mut alice = login(&cluster, 0, "alice", json!({})).await;
    let mut bob = cluster.connect(0).await;
    let mut login = json!({"type": "login", "name": "bob", "resumable": true});
    login["token"] = json!(token("bob", json!({"callable_by": ["alice"]})));
    bob.send(&login).await;
    login["resume"] = bob.receive().await["resume"].clone();
    let mut reaches = async |code: &serde_json::Value| {
        let message = json!({"type": "message", "name": "bob", "message": 1, "id": 1});
        alice.send(&message).await;
        assert_eq!(&alice.receive().await["code"], code);
    };
    reaches(&json!(null)).await;
    for (others, code) in [
        (json!({"callable_by": ["carol"]}), json!("forbidden")),
        (json!({}), json!(null)),
        (json!({"callable_by": []}), json!("forbidden")),
    ] {
        login["token"] = json!(token("bob", others));
        let mut next = cluster.connect(1).await;
        next.send(&login).await;
        assert_eq!(next.receive_type("login").await["resumed"], true);
        reaches(&code).await;
        bob = next;
    }
    bob.close().await;
}
