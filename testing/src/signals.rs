//! Signals that tests send with a WebSocket client.

use serde_json::{Value, json};

use crate::websocket::Client;

/// How the text of a message begins that only probes whether its receiver is connected.
pub(crate) const PROBE: &str = "probe-";

impl Client {
    /// Offers a call to another client, which answers it.
    pub async fn call(&mut self, other: &mut Client) {
        let id = format!("call-{}", other.name);
        self.send(&json!({"type": "offer", "name": other.name, "offer": {"sdp": "o"}, "id": id}))
            .await;
        let offer = other.receive_type("offer").await;
        assert_eq!(offer["name"], self.name.as_str());
        let ack = self.receive_outcome(&id).await;
        assert_eq!(ack["status"], "delivered", "{ack}");
        other
            .send(&json!({"type": "answer", "name": self.name, "answer": {"sdp": "a"}}))
            .await;
        assert_eq!(
            self.receive_type("answer").await["name"],
            other.name.as_str()
        );
    }

    /// Sends a message with an id; its ack or error.
    pub async fn send_message(&mut self, to: &str, id: &str) -> Value {
        self.send(&json!({"type": "message", "name": to, "message": id, "id": id}))
            .await;
        self.receive_outcome(id).await
    }

    /// The next message with this id; skips others.
    async fn receive_outcome(&mut self, id: &str) -> Value {
        loop {
            let message = self.receive().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// Sends a candidate with a number as its body.
    pub async fn send_candidate(&mut self, to: &str, number: usize) {
        self.send(&json!({"type": "candidate", "name": to, "candidate": number}))
            .await;
    }

    /// Expects candidates with these numbers, and nothing else but probes of
    /// [`Cluster::disconnect`](crate::Cluster::disconnect).
    pub async fn receive_candidates(&mut self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            assert_eq!(self.receive_no_probe().await["candidate"], number);
        }
    }

    /// The next message that is no probe of [`Cluster::disconnect`](crate::Cluster::disconnect).
    pub async fn receive_no_probe(&mut self) -> Value {
        loop {
            let message = self.receive().await;
            let text = message["message"].as_str();
            if !text.is_some_and(|text| text.starts_with(PROBE)) {
                return message;
            }
        }
    }
}
