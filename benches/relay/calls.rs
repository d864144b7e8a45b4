//! Whole calls, one after the other: offer and candidates, answer and candidates, leave. Measures the time until both
//! sides have all messages.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep;

use crate::Outcome;
use crate::client::{Client, either_readable, expect};
use crate::message::{Message, Route};
use crate::scenario::{AFTERMATH, Pair};
use crate::server::Subject;
use crate::stage::{Stage, Tally};

const CANDIDATES: usize = 8;

pub(crate) async fn run(pair: Pair, subject: Subject, stage: Arc<Stage>) -> Outcome<Tally> {
    let Pair {
        mut caller,
        mut called,
        names: [from, to],
    } = pair;
    let there = Route {
        subject,
        from: &from,
        to: &to,
    };
    let back = Route {
        subject,
        from: &to,
        to: &from,
    };
    let mut asking = Part::new(there.offer(), &there);
    let mut answering = Part::new(back.answer(), &back);
    let Message {
        sent: leave,
        received: mut left,
    } = there.leave();
    let mut tally = Tally::default();

    while stage.goes_on().await {
        let begun = Instant::now();
        asking.speak(&mut caller);
        caller.flush().await?;
        while !(asking.is_heard() && answering.is_heard()) {
            either_readable(&caller, &called).await;
            let nothing_yet = asking.heard == 0;
            asking.listen(&mut called)?;
            if nothing_yet && asking.heard > 0 {
                answering.speak(&mut called);
            }
            called.flush().await?;
            answering.listen(&mut caller)?;
            caller.flush().await?;
        }
        tally.add(&stage, begun.elapsed());

        caller.queue(leave.bytes());
        caller.flush().await?;
        let mut has_left = false;
        while !(has_left && caller.is_acknowledged() && called.is_acknowledged()) {
            either_readable(&caller, &called).await;
            caller.expect_silence()?;
            caller.flush().await?;
            called.fill()?;
            while let Some(text) = called.next_text()? {
                if has_left {
                    return Err(format!("unexpected: {}", String::from_utf8_lossy(text)).into());
                }
                expect(&mut left, text)?;
                has_left = true;
            }
            called.flush().await?;
        }
        asking.heard = 0;
        answering.heard = 0;
    }
    sleep(AFTERMATH).await;
    caller.expect_silence()?;
    called.expect_silence()?;
    Ok(tally)
}

/// The messages of one side of a call: a description and its candidates, in this order.
struct Part {
    messages: Vec<Message>,
    heard: usize,
}

impl Part {
    fn new(description: Message, route: &Route<'_>) -> Self {
        let candidates = (1..=CANDIDATES).map(|place| route.candidate(place));
        Self {
            messages: std::iter::once(description).chain(candidates).collect(),
            heard: 0,
        }
    }

    fn speak(&mut self, client: &mut Client) {
        for Message { sent, .. } in &mut self.messages {
            client.queue(sent.bytes());
            sent.advance();
        }
    }

    fn listen(&mut self, client: &mut Client) -> Outcome<()> {
        client.fill()?;
        while let Some(text) = client.next_text()? {
            let Some(Message { received, .. }) = self.messages.get_mut(self.heard) else {
                return Err(format!("unexpected: {}", String::from_utf8_lossy(text)).into());
            };
            expect(received, text)?;
            self.heard += 1;
        }
        Ok(())
    }

    fn is_heard(&self) -> bool {
        self.heard == self.messages.len()
    }
}
