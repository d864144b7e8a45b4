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

use crate::diary::Diary;
use crate::history::What;
use crate::link::Link;
use crate::listener::Heard;
use crate::stage::{Act, Stage};

const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The most messages in flight to the client that does not read, each of the following size.
const WINDOW: usize = 8;
const LARGE: usize = 56 * 1024;
/// A mailbox and the socket buffers of both sides hold far less.
const TOO_MUCH: usize = 40 << 20;

async fn enter(diary: &Arc<Diary>, stage: &Stage, node: usize, name: &str) -> Option<Link> {
    let mut link = Link::open(diary, node, stage.endpoints[node]).await?;
    let request = json!({"type": "login", "name": name});
    let reply = link.login(&request, ANSWER_WITHIN).await?;
    (reply["success"] == true).then_some(link)
}

/// Watches the presence of all callers.
pub(crate) async fn watch(stage: Arc<Stage>, watched: Vec<String>) {
    let diary = Diary::new(&stage.history, "watcher");
    let mut node = 0;
    while stage.act() < Act::Partings {
        node = (node + 1) % stage.endpoints.len();
        if let Some(mut link) = enter(&diary, &stage, node, "watcher").await {
            let request = json!({"type": "presence", "names": watched, "watch": true});
            let mut alive = link.say(&request).await;
            while alive && stage.act() < Act::Partings && link.silent_for() < Duration::from_secs(3)
            {
                alive = !matches!(link.heard.try_recv(), Ok(Heard::Closed(_)));
                stage.rest(Duration::from_millis(100)).await;
            }
        }
        stage.rest(Duration::from_millis(300)).await;
    }
}

/// Tries to log in with names that others hold.
pub(crate) async fn covet(stage: Arc<Stage>) {
    let mut dice = stage.dice("stranger");
    while stage.act() < Act::Partings {
        let name = stage.names[dice.random_range(0..stage.names.len())].clone();
        let node = dice.random_range(0..stage.endpoints.len());
        // The history has it under its own name, not the one that it tries to get.
        let diary = Diary::new(&stage.history, &format!("stranger:{name}"));
        if let Some(mut link) = Link::open(&diary, node, stage.endpoints[node]).await {
            let mut request = json!({"type": "login", "name": name});
            if dice.random_bool(0.3) {
                request["resume"] = json!("a guess");
            }
            let reply = link.login(&request, Duration::from_secs(6)).await;
            if reply.is_some_and(|reply| reply["success"] == true) {
                // A name that it got is released at once.
                link.close().await;
            }
        }
        stage.rest(Duration::from_millis(50)).await;
    }
}

/// Sends more than the rate limit allows.
pub(crate) async fn want_more(stage: Arc<Stage>) {
    let diary = Diary::new(&stage.history, "greedy");
    while stage.act() < Act::Calm {
        if let Some(mut link) = enter(&diary, &stage, 0, "greedy").await {
            let message = json!({"type": "message", "name": "nobody", "message": 1});
            for burst in 0..200 {
                let mut sent = true;
                for _ in 0..20 {
                    sent = sent && link.say(&message).await;
                }
                while link.heard.try_recv().is_ok() {}
                if !sent || burst % 20 == 19 && stage.act() >= Act::Calm {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        stage.rest(Duration::from_secs(3)).await;
    }
}

/// Sends malformed messages, and checks after each that the connection still answers.
pub(crate) async fn soil(stage: Arc<Stage>) {
    let diary = Diary::new(&stage.history, "dirty");
    let mut dice = stage.dice("dirty");
    let mut number = 0_u64;
    while stage.act() < Act::Partings {
        let node = dice.random_range(0..stage.endpoints.len());
        if let Some(mut link) = enter(&diary, &stage, node, "dirty").await {
            while stage.act() < Act::Partings {
                number += 1;
                let victim = &stage.names[dice.random_range(0..stage.names.len())];
                let life = diary.memory().life;
                let (dirt, words) = dirt(&mut dice, (life, number), victim, &link);
                let begun = stage.history.now();
                let heard = link.send(dirt).await && is_heard(&mut link, number).await;
                if !heard {
                    // The connection is open and gives no answer; the checker decides whether a fault excuses that.
                    let closed = link.heard.is_closed();
                    let waited = stage.history.now().saturating_sub(begun);
                    if !closed && waited >= ANSWER_WITHIN {
                        let words =
                            format!("no answer on node {node} for {waited:?} after {words}");
                        link.note(What::Wrong(11, words));
                    }
                    break;
                }
                stage.rest(Duration::from_millis(60)).await;
            }
            // The last signals may have no outcome yet.
            link.retire();
        }
        stage.rest(Duration::from_millis(100)).await;
    }
}

async fn is_heard(link: &mut Link, number: u64) -> bool {
    let id = format!("ping{number}");
    if !link.say(&json!({"type": "ping", "id": id})).await {
        return false;
    }
    let pong = |said: &Value| said["type"] == "pong" && said["id"] == id.as_str();
    link.answer(ANSWER_WITHIN, pong).await.is_some()
}

/// A malformed message and its label.
fn dirt(
    dice: &mut impl rand::Rng,
    number: (u32, u64),
    victim: &str,
    link: &Link,
) -> (Message, &'static str) {
    let text = |words: &str| Message::text(words.to_owned());
    match dice.random_range(0..16) {
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
            Message::binary((0..200).map(|_| dice.random()).collect::<Vec<u8>>()),
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
pub(crate) async fn flood(stage: Arc<Stage>, node: usize, door: std::net::SocketAddr) {
    let deaf = Diary::new(&stage.history, "deaf");
    let flooder = Diary::new(&stage.history, "flooder");
    let Some(mut victim) = Link::open_with(&deaf, node, door, Some(8192)).await else {
        return;
    };
    let login = json!({"type": "login", "name": "deaf"});
    let reply = victim.login(&login, ANSWER_WITHIN).await;
    if reply.is_none_or(|reply| reply["success"] != true) {
        return;
    }
    let Some(mut link) = enter(&flooder, &stage, node, "flooder").await else {
        return;
    };
    victim.goes_deaf(true);
    let (mut under_way, mut taken, mut number) = (0, 0, 0_u64);
    let padding = "x".repeat(LARGE);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) && stage.act() < Act::Calm {
        while under_way < WINDOW {
            number += 1;
            let id = format!("flooder.0.{number}");
            let message = json!({"type": "message", "name": "deaf", "message": padding, "id": id});
            if !link.say(&message).await {
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
                victim.goes_deaf(false);
                if let Some(Some(code)) = victim.is_closed(Duration::from_secs(8)).await
                    && code != 4008
                {
                    let words = format!("who did not read was closed with {code} and not 4008");
                    stage.history.found(8, words);
                }
                return;
            }
            Some(_) => sleep(Duration::from_millis(50)).await,
        }
        if taken > TOO_MUCH {
            let words = format!("{taken} bytes were taken for a client that does not read");
            stage.history.found(8, words);
            return;
        }
    }
    if stage.act() == Act::Storm && stage.history.lock().troubles.is_empty() {
        let words = format!("a client that does not read was kept, for {taken} bytes");
        stage.history.found(8, words);
    }
}
