//! Candidates from the caller to the callee with a fixed number in flight: each arrival releases the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep;

use crate::Outcome;
use crate::client::{answer_pings_until, either_readable, expect};
use crate::message::Message;
use crate::scenario::{AFTERMATH, Pair};
use crate::server::Subject;
use crate::stage::{Stage, Tally};

pub(crate) async fn run(
    pair: Pair,
    subject: Subject,
    window: usize,
    stage: Arc<Stage>,
) -> Outcome<Tally> {
    let [there, _] = pair.routes(subject);
    let Message {
        mut sent,
        mut received,
    } = there.candidate(1);
    let Pair {
        mut caller,
        mut called,
        ..
    } = pair;
    let mut tally = Tally::default();
    let mut in_flight = VecDeque::with_capacity(window);
    while answer_pings_until([&mut caller, &mut called], stage.goes_on()).await? {
        for _ in 0..window {
            caller.queue(sent.bytes());
            sent.advance();
            in_flight.push_back(Instant::now());
        }
        caller.flush().await?;
        while !(in_flight.is_empty() && caller.is_acknowledged()) {
            either_readable(&caller, &called).await;
            caller.expect_silence()?;
            called.fill()?;
            let now = Instant::now();
            while let Some(text) = called.next_text()? {
                expect(&mut received, text)?;
                let since = in_flight.pop_front().ok_or("received more than was sent")?;
                tally.add(&stage, now - since);
                if stage.is_working() {
                    caller.queue(sent.bytes());
                    sent.advance();
                    in_flight.push_back(now);
                }
            }
            caller.flush().await?;
            called.flush().await?;
        }
    }
    sleep(AFTERMATH).await;
    caller.expect_silence()?;
    called.expect_silence()?;
    Ok(tally)
}
