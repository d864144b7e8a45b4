//! The auxiliary clients: a watcher, strangers, one that sends too much, one that sends garbage, one that does not
//! read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::client_state::ClientState;
use crate::history::What;
use crate::link::Link;
use crate::reader::Incoming;
use crate::shared::{Phase, Shared};

const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The most messages in flight to the client that does not read, each of the following size.
const WINDOW: usize = 8;
const LARGE: usize = 56 * 1024;
/// A mailbox and the socket buffers of both sides hold far less.
const TOO_MUCH: usize = 40 << 20;

async fn enter(
    client_state: &Arc<ClientState>,
    shared: &Shared,
    node: usize,
    name: &str,
) -> Option<Link> {
    let mut link = Link::open(client_state, node, shared.endpoints[node]).await?;
    let request = json!({"type": "login", "name": name});
    let reply = link.login(&request, ANSWER_WITHIN).await?;
    (reply["success"] == true).then_some(link)
}

/// Watches the presence of all callers.
pub(crate) async fn watch(shared: Arc<Shared>, watched: Vec<String>) {
    let client_state = ClientState::new(&shared.history, "watcher");
    let mut node = 0;
    while shared.phase() < Phase::Endings {
        node = (node + 1) % shared.endpoints.len();
        if let Some(mut link) = enter(&client_state, &shared, node, "watcher").await {
            let request = json!({"type": "presence", "names": watched, "watch": true});
            let mut alive = link.send_json(&request).await;
            while alive
                && shared.phase() < Phase::Endings
                && link.silent_for() < Duration::from_secs(3)
            {
                alive = !matches!(link.heard.try_recv(), Ok(Incoming::Closed(_)));
                shared.rest(Duration::from_millis(100)).await;
            }
        }
        shared.rest(Duration::from_millis(300)).await;
    }
}

/// Tries to log in with names that others hold.
pub(crate) async fn covet(shared: Arc<Shared>) {
    let mut rng = shared.rng("stranger");
    while shared.phase() < Phase::Endings {
        let name = shared.names[rng.random_range(0..shared.names.len())].clone();
        let node = rng.random_range(0..shared.endpoints.len());
        // The history has it under its own name, not the one that it tries to get.
        let client_state = ClientState::new(&shared.history, &format!("stranger:{name}"));
        if let Some(mut link) = Link::open(&client_state, node, shared.endpoints[node]).await {
            let mut request = json!({"type": "login", "name": name});
            if rng.random_bool(0.3) {
                request["resume"] = json!("a guess");
            }
            let reply = link.login(&request, Duration::from_secs(6)).await;
            if reply.is_some_and(|reply| reply["success"] == true) {
                // A name that it got is released at once.
                link.close().await;
            }
        }
        shared.rest(Duration::from_millis(50)).await;
    }
}

/// Sends more than the rate limit allows.
pub(crate) async fn want_more(shared: Arc<Shared>) {
    let client_state = ClientState::new(&shared.history, "greedy");
    while shared.phase() < Phase::Calm {
        if let Some(mut link) = enter(&client_state, &shared, 0, "greedy").await {
            let message = json!({"type": "message", "name": "nobody", "message": 1});
            for burst in 0..200 {
                let mut sent = true;
                for _ in 0..20 {
                    sent = sent && link.send_json(&message).await;
                }
                while link.heard.try_recv().is_ok() {}
                if !sent || burst % 20 == 19 && shared.phase() >= Phase::Calm {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        shared.rest(Duration::from_secs(3)).await;
    }
}

/// Sends malformed messages, and checks after each that the connection still answers.
pub(crate) async fn soil(shared: Arc<Shared>) {
    let client_state = ClientState::new(&shared.history, "dirty");
    let mut rng = shared.rng("dirty");
    let mut number = 0_u64;
    while shared.phase() < Phase::Endings {
        let node = rng.random_range(0..shared.endpoints.len());
        if let Some(mut link) = enter(&client_state, &shared, node, "dirty").await {
            while shared.phase() < Phase::Endings {
                number += 1;
                let victim = &shared.names[rng.random_range(0..shared.names.len())];
                let life = client_state.memory().life;
                let (dirt, words) = dirt(&mut rng, (life, number), victim, &link);
                let begun = shared.history.now();
                let heard = link.send(dirt).await && is_heard(&mut link, number).await;
                if !heard {
                    // The connection is open and gives no answer; the checker decides whether a fault excuses that.
                    let closed = link.heard.is_closed();
                    let waited = shared.history.now().saturating_sub(begun);
                    if !closed && waited >= ANSWER_WITHIN {
                        let words =
                            format!("no answer on node {node} for {waited:?} after {words}");
                        link.note(What::Wrong(11, words));
                    }
                    break;
                }
                shared.rest(Duration::from_millis(60)).await;
            }
            // The last signals may have no outcome yet.
            link.retire();
        }
        shared.rest(Duration::from_millis(100)).await;
    }
}

async fn is_heard(link: &mut Link, number: u64) -> bool {
    let id = format!("ping{number}");
    if !link.send_json(&json!({"type": "ping", "id": id})).await {
        return false;
    }
    let pong = |said: &Value| said["type"] == "pong" && said["id"] == id.as_str();
    link.answer(ANSWER_WITHIN, pong).await.is_some()
}

/// A malformed message and its label.
fn dirt(
    rng: &mut impl rand::Rng,
    number: (u32, u64),
    victim: &str,
    link: &Link,
) -> (Message, &'static str) {
    let text = |words: &str| Message::text(words.to_owned());
    match rng.random_range(0..16) {
        0 => (text("{\"type\":\"offer\","), "half an object"),
        1 => (text("null"), "null"),
        2 => (text("[1,[2,[3]]]"), "an array"),
        3 => (text(&"[".repeat(20_000)), "20,000 brackets"),
        4 => (text(r#"{"type":{"a":1}}"#), "a type that is an object"),
        5 => (
            text(r#"{"type":"login","name":"r0","name":"r1"}"#),
            "two names",
        ),
        6 => (text(r#"{"type":"constructor"}"#), "an unknown type"),
        7 => (
            Message::binary((0..200).map(|_| rng.random()).collect::<Vec<u8>>()),
            "bytes",
        ),
        8 => (Message::text("x".repeat(70_000)), "a huge frame"),
        9 => {
            let frame = Frame::message(vec![0xC3, 0x28, 0xFF], OpCode::Data(Data::Text), true);
            (Message::Frame(frame), "text that is not UTF-8")
        }
        10 => (
            text(r#"{"type":"presence","names":{"a":1},"watch":"yes"}"#),
            "ill-typed fields",
        ),
        11 => (
            text(&format!(
                r#"{{"type":"message","name":"{victim}","message":1,"id":{{}}}}"#
            )),
            "an id that is an object",
        ),
        12 => (
            text("{\"type\":\"leave\",\"name\":\"\\u0000\\ud800\"}"),
            "half a surrogate",
        ),
        13 => (Message::Ping(vec![7; 125].into()), "a ping"),
        _ => (spoof(number, victim, link), "a spoofed sender"),
    }
}

/// A valid message that claims in every possible field to come from somebody else.
fn spoof((life, number): (u32, u64), victim: &str, link: &Link) -> Message {
    let id = format!("dirty.{life}.{number}");
    let other = "p0";
    let body = json!({"id": id, "from": "dirty", "to": victim, "n": number, "life": life});
    let message = json!({
        "type": "message", "name": victim, "message": body, "id": id,
        "from": other, "sender": other, "src": other, "user": other, "username": other, "session": "0", "seq": "9",
        "Name": other, "realm": "x", "reason": "hangup",
    });
    link.note(What::Sent {
        id,
        kind: "message",
        to: victim.to_owned(),
    });
    Message::text(message.to_string())
}

/// Floods a client that does not read: the server must end it before much has accumulated.
pub(crate) async fn flood(shared: Arc<Shared>, node: usize, front: std::net::SocketAddr) {
    let victim_state = ClientState::new(&shared.history, "deaf");
    let flooder = ClientState::new(&shared.history, "flooder");
    let Some(mut victim) = Link::open_with(&victim_state, node, front, Some(8192)).await else {
        return;
    };
    let login = json!({"type": "login", "name": "deaf"});
    let reply = victim.login(&login, ANSWER_WITHIN).await;
    if reply.is_none_or(|reply| reply["success"] != true) {
        return;
    }
    let Some(mut link) = enter(&flooder, &shared, node, "flooder").await else {
        return;
    };
    victim.stop_reading(true);
    let (mut under_way, mut taken, mut number) = (0, 0, 0_u64);
    let padding = "x".repeat(LARGE);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) && shared.phase() < Phase::Calm {
        while under_way < WINDOW {
            number += 1;
            let id = format!("flooder.0.{number}");
            let message = json!({"type": "message", "name": "deaf", "message": padding, "id": id});
            if !link.send_json(&message).await {
                return;
            }
            under_way += 1;
        }
        let settled = |said: &Value| said["type"] == "ack" || said["type"] == "error";
        let Some(said) = link.answer(ANSWER_WITHIN, settled).await else {
            return;
        };
        under_way -= 1;
        match said["code"].as_str() {
            None => taken += LARGE,
            Some("user_unavailable") => {
                // The name is free, so the session that did not read was ended. It gets the reason if there was room
                // for a close frame.
                victim.stop_reading(false);
                if let Some(Some(code)) = victim.is_closed(Duration::from_secs(8)).await
                    && code != 4008
                {
                    let words = format!("who did not read was closed with {code} and not 4008");
                    shared.history.found(8, words);
                }
                return;
            }
            Some(_) => sleep(Duration::from_millis(50)).await,
        }
        if taken > TOO_MUCH {
            let words = format!("{taken} bytes were taken for a client that does not read");
            shared.history.found(8, words);
            return;
        }
    }
    if shared.phase() == Phase::Faults && shared.history.lock().troubles.is_empty() {
        let words = format!("a client that does not read was kept, for {taken} bytes");
        shared.history.found(8, words);
    }
}
