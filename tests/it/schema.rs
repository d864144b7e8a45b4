//! The JSON Schemas and the `OpenAPI` description in docs/src/schema, held to the codec and to a live node.

mod clients;
mod keywords;

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use switchboard::model::{Command, Frame, UserName};
use switchboard::protocol::{Codec as _, Native};
use testing::http_session::Downlink;
use testing::{Client, Cluster, HttpSession, http};

use self::keywords::fits;

static CLIENT: LazyLock<Value> = LazyLock::new(|| document("client-message.json"));
static SERVER: LazyLock<Value> = LazyLock::new(|| document("server-message.json"));

fn document(name: &str) -> Value {
    let path = format!("{}/docs/src/schema/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Panics unless exactly one kind of the schema describes this message of the server, with all its fields.
///
/// Clients ignore fields that they do not know; this does not.
pub fn describes(message: &Value, at: &str) {
    let kinds = SERVER["oneOf"].as_array().unwrap().iter().filter(|kind| {
        let name = kind["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let fields = &SERVER["$defs"][name]["properties"];
        let mut has = message.as_object().unwrap().keys();
        has.all(|field| fields.get(field).is_some()) && fits(&SERVER, kind, message)
    });
    assert_eq!(kinds.count(), 1, "{at}: server-message.json and {message}");
}

/// Panics if the codec takes a message that does not fit the schema.
pub fn describes_if_taken(text: &str, at: &str) {
    if let Ok(message) = serde_json::from_str(text)
        && is_taken(text)
    {
        let is_described = fits(&CLIENT, &CLIENT, &message);
        assert!(is_described, "{at}: client-message.json and {text}");
    }
}

/// Whether the codec takes it. A login under what is no name is refused later, as a login.
fn is_taken(text: &str) -> bool {
    match Native.decode(&Frame::from(text.to_owned())) {
        Ok(Command::Login { request, .. }) => UserName::parse(&request.name).is_ok(),
        Ok(_) => true,
        Err(_) => false,
    }
}

const TYPES: [&str; 13] = [
    "login",
    "offer",
    "answer",
    "candidate",
    "message",
    "leave",
    "presence",
    "report",
    "ping",
    "ack",
    "token",
    "status",
    "",
];

const FIELDS: [&str; 18] = [
    "id",
    "name",
    "offer",
    "answer",
    "candidate",
    "message",
    "names",
    "watch",
    "token",
    "resumable",
    "resume",
    "last",
    "seq",
    "traceparent",
    "state",
    "ms",
    "pair",
    "other",
];

/// What some field takes, and what none does.
fn values() -> Vec<Value> {
    vec![
        json!("b"),
        json!("User B"),
        json!(""),
        json!("x".repeat(64)),
        json!("x".repeat(65)),
        json!("x".repeat(129)),
        json!("17-2"),
        json!("connected"),
        json!("relay"),
        json!(7),
        json!(-1),
        json!(1.5),
        json!(86_400_001),
        json!(true),
        json!(null),
        json!([]),
        json!(["b", "c"]),
        json!(["b", 1]),
        json!(["b", ""]),
        json!({"sdp": "v=0"}),
    ]
}

/// The fields that this type needs, with values that it takes, so that many messages are taken.
fn needed(kind: &str) -> Value {
    match kind {
        "login" => json!({"name": "b"}),
        "offer" | "answer" | "candidate" | "message" => json!({"name": "b", kind: {"a": 1}}),
        "presence" => json!({"names": ["b"]}),
        "report" => json!({"name": "b", "state": "failed"}),
        "ack" => json!({"seq": "17-2"}),
        "token" => json!({"token": "b"}),
        _ => json!({}),
    }
}

prop_compose! {
    fn messages()(
        kind in select(&TYPES[..]),
        is_complete in any::<bool>(),
        fields in subsequence(&FIELDS[..], 0..4),
        values in prop::collection::vec(select(values()), 4),
    ) -> Value {
        let mut message = Map::new();
        message.insert("type".to_owned(), json!(kind));
        if is_complete {
            message.extend(needed(kind).as_object().unwrap().clone());
        }
        for (field, value) in fields.into_iter().zip(values) {
            message.insert(field.to_owned(), value);
        }
        Value::Object(message)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_codec_takes_exactly_what_fits_the_schema(message in messages()) {
        prop_assert_eq!(fits(&CLIENT, &CLIENT, &message), is_taken(&message.to_string()), "{}", message);
    }
}

/// The conversations of the codec's unit tests: what it refuses does not fit, what it takes does.
#[test]
fn the_codecs_own_examples_fit() {
    let transcript = include_str!("../../src/protocol/native/tests.transcript");
    let frames = transcript
        .lines()
        .filter_map(|line| line.strip_prefix("> "));
    let mut taken = 0;
    for frame in frames {
        describes_if_taken(frame, "tests.transcript");
        taken += usize::from(is_taken(frame));
    }
    assert!(taken > 15, "only {taken}");
}

/// Every operation of the HTTP transport and the admin listener, at a live node.
#[tokio::test]
async fn a_node_answers_as_openapi_says() {
    let mut api = Api::new();
    let cluster = Cluster::over_redis(1, &[("ice.servers", "stun:a.example")]).await;
    let (address, admin) = (cluster.nodes[0].address, cluster.nodes[0].admin);
    for path in ["/livez", "/readyz", "/status", "/metrics"] {
        let response = http::get(admin, path).await.unwrap();
        api.describes("get", path, &response);
    }
    api.describes(
        "get",
        "/v1/whoami",
        &http::get(address, "/v1/whoami").await.unwrap(),
    );

    let bad = http::request(address, "POST", "/v1/sessions", &[], "{").await;
    api.describes("post", "/v1/sessions", &bad);
    let opening = json!({"login": {"name": "a"}}).to_string();
    let opened = http::request(address, "POST", "/v1/sessions", &[], &opening).await;
    api.describes("post", "/v1/sessions", &opened);
    let session = HttpSession::from_reply(address, Downlink::Poll, &opened.json());

    let message = json!({"type": "offer", "name": "nobody", "offer": 1, "id": 1}).to_string();
    for (kind, body) in [
        ("application/json", &*message),
        ("application/json", "["),
        ("text/plain", ""),
    ] {
        let headers = [("content-type", kind)];
        let response = session
            .request("POST", "/v1/messages", &headers, body)
            .await;
        api.describes("post", "/v1/messages", &response);
    }
    for path in [
        "?mode=poll&wait=5",
        "?mode=poll&after=0-0&wait=0",
        "?mode=drum",
    ] {
        let response = session
            .request("GET", &format!("/v1/events{path}"), &[], "")
            .await;
        api.describes("get", "/v1/events", &response);
        if response.status == 200 {
            for event in response.json()["events"].as_array().unwrap() {
                describes(&event["data"], path);
            }
        }
    }
    let strange = http::get(address, "/v1/events?mode=poll").await.unwrap();
    api.describes("get", "/v1/events", &strange);
    let servers = session.request("GET", "/v1/ice-servers", &[], "").await;
    api.describes("get", "/v1/ice-servers", &servers);

    let path = format!("/v1/sessions/{}", session.session);
    let ended = session.request("DELETE", &path, &[], "").await;
    assert_eq!(ended.status, 204);
    api.describes("delete", "/v1/sessions/{session}", &ended);
    let close = format!("{path}/close");
    let gone = session.request("POST", &close, &[], "").await;
    api.describes("post", "/v1/sessions/{session}/close", &gone);
    api.was_asked_everything();
    Client::login(address, "a").await.close().await;
}

/// The `OpenAPI` description, and which operations were asked.
struct Api {
    document: Value,
    asked: Vec<(String, String)>,
}

impl Api {
    fn new() -> Self {
        Self {
            document: document("openapi.json"),
            asked: Vec::new(),
        }
    }

    /// Panics unless the operation has this response, in its status, type and body.
    fn describes(&mut self, method: &str, path: &str, response: &http::Response) {
        self.asked.push((path.to_owned(), method.to_owned()));
        let operation = &self.document["paths"][path][method];
        let known = &operation["responses"][response.status.to_string()];
        assert!(known.is_object(), "{method} {path}: {response:?}");
        let Some(content) = known["content"].as_object() else {
            assert_eq!(response.body, "", "{method} {path}");
            return;
        };
        let kind = response.header("content-type").split(';').next().unwrap();
        let schema = content
            .get(kind)
            .unwrap_or_else(|| panic!("{method} {path}: {kind}"));
        if kind == "application/json" {
            let body = response.json();
            let is_described = fits(&self.document, &schema["schema"], &body);
            assert!(is_described, "{method} {path}: {body}");
        }
    }

    fn was_asked_everything(&self) {
        let paths = self.document["paths"].as_object().unwrap();
        for (path, operations) in paths {
            let methods = operations.as_object().unwrap().keys();
            for method in methods.filter(|key| !["parameters", "servers"].contains(&key.as_str())) {
                let operation = (path.clone(), method.clone());
                assert!(
                    self.asked.contains(&operation),
                    "{operation:?} is not tested"
                );
            }
        }
    }
}
