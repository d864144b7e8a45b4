//! What the server says, and what it means for the session.

use std::time::Duration;

use tokio::time::Instant;

use super::{Driver, End, GIVEN_UP, Link};
use crate::wire::{Frame, Message, Receipt};

impl Driver {
    pub(super) fn hear(&mut self, link: &mut Link, text: &str) -> Result<(), End> {
        let Ok(mut frame) = serde_json::from_str::<Frame>(text) else {
            return Err(End::Close(GIVEN_UP));
        };
        match frame.kind.as_str() {
            "login" if frame.success => self.enter(frame),
            "login" => return self.refused(link, &frame),
            _ if frame.id.is_some() => self.outbox.settle(frame, Instant::now()),
            "status" if frame.missed => self.give(Message {
                kind: "missed".to_owned(),
                resumed: true,
                ..Message::default()
            }),
            // After a goaway the close says the same. An error without an id is of nothing that was sent here.
            "status" | "pong" | "goaway" | "error" | "ack" => {}
            kind => {
                let kind = kind.to_owned();
                let body = frame.body();
                if kind == "ice_servers" {
                    let ice_servers = body.clone();
                    self.status
                        .send_modify(|status| status.ice_servers = ice_servers);
                }
                let receipt = frame.seq.map(|seq| Receipt {
                    generation: self.generation,
                    seq,
                    bytes: text.len(),
                });
                if let Some(receipt) = &receipt {
                    self.heard = Some(receipt.seq.clone());
                }
                self.give(Message {
                    kind,
                    name: frame.name.unwrap_or_default(),
                    body,
                    resumed: false,
                    receipt,
                });
            }
        }
        Ok(())
    }

    fn enter(&mut self, mut frame: Frame) {
        self.is_known = true;
        self.secret = frame.resume.take();
        self.beat = frame.heartbeat.unwrap_or(self.beat);
        self.outbox
            .opened(frame.limits.unwrap_or_default(), Instant::now());
        self.status.send_modify(|status| {
            status.session = frame.session;
            status.node = frame.node;
            status.ice_servers = frame.rest.remove("iceServers").unwrap_or_default();
        });
    }

    fn refused(&mut self, link: &mut Link, frame: &Frame) -> Result<(), End> {
        let code = frame.code.as_deref().unwrap_or_default();
        let may_later = frame.retry_after_ms.is_some() && (self.is_known || code != "name_taken");
        match code {
            "resume_failed" => {
                self.lose();
                self.log_in(link);
            }
            "draining" => return Err(End::Close(GIVEN_UP)),
            _ if may_later || code == "unavailable" => {
                let pause = frame.retry_after().unwrap_or(Duration::from_secs(1));
                link.login_at = Some(Instant::now() + pause);
            }
            _ => {
                self.end(frame.error());
                return Err(End::Close(1000));
            }
        }
        Ok(())
    }
}
