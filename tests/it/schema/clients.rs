//! The conversations that the clients in other languages are held to are such as the server has.

use serde_json::{Value, json};

use super::{describes, describes_if_taken};

const TRANSCRIPTS: &str = include_str!("../../../clients/transcripts.json");

#[test]
fn of_the_clients_transcripts_every_message_is_described() {
    // The number of a repetition.
    let transcripts = TRANSCRIPTS.replace("\"#\"", "1").replace("-#", "-1");
    let mut all: Value = serde_json::from_str(&transcripts).unwrap();
    let parts = all.as_object_mut().unwrap();
    parts.remove("about");
    let mut checked = 0;
    for (title, steps) in parts.values().flat_map(|part| part.as_object().unwrap()) {
        for step in steps.as_array().unwrap() {
            if let Some(message) = step.get("server") {
                describes(message, title);
            } else if let Some(fields) = step.get("logs_in") {
                describes(&login_with(fields), title);
            } else if let Some(message) = step.get("sends") {
                // Fields that are not there, and those that are not told.
                let told = message.as_object().unwrap().iter();
                let told: Value = told
                    .filter(|(_, value)| !value.is_null())
                    .map(|(field, value)| (field.clone(), value.clone()))
                    .collect();
                describes_if_taken(&told.to_string(), title);
            } else {
                continue;
            }
            checked += 1;
        }
    }
    assert!(checked > 80, "only {checked} messages");
}

/// What the step `logs_in` stands for.
fn login_with(fields: &Value) -> Value {
    let mut reply = json!({
        "type": "login", "success": true, "name": "alice", "session": "00000000000000000000000000000001", "node": "one",
        "iceServers": [], "resumed": false, "grace_ms": 10000, "resume": "secret",
    });
    for (field, value) in fields.as_object().unwrap() {
        reply[field] = value.clone();
    }
    reply
}
