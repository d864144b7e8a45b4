//! Whole calls, one after the other: offer and candidates, answer and candidates, leave. Measures the time until both
//! sides have all messages.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep;

use crate::Outcome;
use crate::client::{Client, answer_pings_until, either_readable, expect};
use crate::message::{Message, Route};
use crate::scenario::{AFTERMATH, Pair};
use crate::server::Subject;
use crate::stage::{Stage, Tally};

const CANDIDATES: usize = 8;

pub(crate) async fn run(pair: Pair, subject: Subject, stage: Arc<Stage>) -> Outcome<Tally> {
    let [there, back] = pair.routes(subject);
    let mut asking = Part::new(there.offer(), &there);
    let mut answering = Part::new(back.answer(), &back);
    let mut leave = there.leave();
    let Pair {
        mut caller,
        mut called,
        ..
    } = pair;
    let mut tally = Tally::default();

    while answer_pings_until([&mut caller, &mut called], stage.goes_on()).await? {
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

        hang_up(&mut caller, &mut called, &mut leave).await?;
        asking.heard = 0;
        answering.heard = 0;
    }
    sleep(AFTERMATH).await;
    caller.expect_silence()?;
    called.expect_silence()?;
    Ok(tally)
}

/// Sends the leave, and waits until the other side has it and both have acknowledged everything.
async fn hang_up(from: &mut Client, to: &mut Client, leave: &mut Message) -> Outcome<()> {
    from.queue(leave.sent.bytes());
    from.flush().await?;
    let mut has_left = false;
    while !(has_left && from.is_acknowledged() && to.is_acknowledged()) {
        either_readable(from, to).await;
        from.expect_silence()?;
        from.flush().await?;
        to.fill()?;
        while let Some(text) = to.next_text()? {
            if has_left {
                return Err(format!("unexpected: {}", String::from_utf8_lossy(text)).into());
            }
            expect(&mut leave.received, text)?;
            has_left = true;
        }
        to.flush().await?;
    }
    Ok(())
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
