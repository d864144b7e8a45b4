//! Names that look alike, as clients of each protocol meet the rule.

use serde_json::json;
use testing::{Cluster, http, peerjs};

/// Names that nobody could tell from another, each with the code point that is to blame.
const ALIKE: [(&str, &str); 8] = [
    ("ali\u{200b}ce", "U+200B"),
    ("\u{202e}ecila", "U+202E"),
    ("alice\u{feff}", "U+FEFF"),
    ("a\u{ad}lice", "U+00AD"),
    ("\u{2066}alice\u{2069}", "U+2066"),
    ("alice\u{3164}", "U+3164"),
    ("\u{301}alice", "U+0301"),
    ("ali\u{200d}ce", "U+200D"),
];

#[tokio::test]
async fn a_login_under_a_name_that_looks_like_another_names_the_code_point() {
    let cluster = Cluster::in_memory(1, &[]).await;
    let address = cluster.nodes[0].address;
    let mut alice = cluster.login(0, "alice").await;
    let mut stranger = cluster.connect(0).await;
    for (name, code) in ALIKE {
        let refused = stranger.try_login(name).await;
        assert_eq!(refused["code"], "invalid_name", "{name:?}");
        let why = refused["message"].as_str().unwrap();
        assert!(why.contains(code), "{name:?}: {why}");
        let body = json!({"login": {"name": name}}).to_string();
        let opened = http::request(address, "POST", "/v1/sessions", &[], &body)
            .await
            .json();
        let events = format!(
            "/v1/events?mode=poll&session={}",
            opened["token"].as_str().unwrap()
        );
        let events = http::get(address, &events).await.unwrap();
        assert!(events.body.contains(code), "{name:?}: {}", events.body);
        let id: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let mut peer = peerjs::Client::claim(address, &id, "t").await;
        let refused = peer.receive().await;
        assert!(
            refused.contains("\"ERROR\"") && refused.contains(code),
            "{refused}"
        );
        // Nobody can have such a name.
        alice
            .send(&json!({"type": "message", "name": name, "message": 1, "id": 1}))
            .await;
        assert_eq!(
            alice.receive().await["code"],
            "user_unavailable",
            "{name:?}"
        );
    }
    for blank in [" ", "\u{2800}", "\u{3000}\u{a0}"] {
        let refused = stranger.try_login(blank).await;
        assert_eq!(refused["code"], "invalid_name", "{blank:?}");
        let why = refused["message"].as_str().unwrap();
        assert!(why.contains("visible"), "{blank:?}: {why}");
    }
}

#[tokio::test]
async fn names_of_any_script_are_compared_byte_for_byte() {
    for cluster in [
        Cluster::in_memory(2, &[]).await,
        Cluster::over_redis(2, &[]).await,
    ] {
        let mut callers = Vec::new();
        for name in [
            "Zoë",
            "Zoe\u{308}",
            "zoë",
            "Ｚｏｅ",
            "Zoe ",
            "می\u{200c}خواهم",
            "𞤀𞤣𞤤",
            "🤔",
        ] {
            let mut caller = cluster.login(callers.len() % 2, name).await;
            for other in &mut callers {
                caller.call(other).await;
            }
            callers.push(caller);
        }
    }
}
