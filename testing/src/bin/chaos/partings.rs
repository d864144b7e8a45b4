//! The end of each call: one side ends it in one of four ways, and the other must get one leave.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::caller::Part;
use crate::cluster::{GRACE, NODE_TTL};
use crate::history::{Expectation, What};
use crate::run::Run;
use crate::stage::{Act, Parting};

/// The longest delay of a `leave` that is sent at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(2500);

impl Run {
    /// Ends each call by one side, in different ways; then kills a node.
    pub(crate) async fn part(&mut self, dice: &mut StdRng) -> Outcome<()> {
        let mut pairs: Vec<(Part, Part)> = self
            .parts
            .chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect();
        pairs.shuffle(dice);
        let restless = self.restless();
        pairs.retain(|(one, other)| {
            !restless.contains(&one.name) && !restless.contains(&other.name)
        });
        let ways = [Parting::HangsUp, Parting::Closes, Parting::Vanishes];
        // Three of the resumable and two of the plain calls end when a node is killed.
        let dying = self.dying(&pairs);
        let mut latest = Duration::ZERO;
        for (number, (goes, stays)) in pairs
            .iter()
            .filter(|(one, _)| !dying.contains(&one.name))
            .enumerate()
        {
            let way = ways[number % ways.len()];
            self.stage.board().partings.insert(goes.name.clone(), way);
            latest = latest.max(self.expect(goes, stays, way));
        }
        self.act.send_replace(Act::Partings);
        self.until_all_left(latest).await;
        self.die(&pairs, &dying).await
    }

    /// Callers of pairs on different nodes, so that the other side survives the kill.
    fn dying(&self, pairs: &[(Part, Part)]) -> Vec<String> {
        let board = self.stage.board();
        let apart = pairs.iter().filter(|(one, other)| {
            let (here, there) = (board.at.get(&one.name), board.at.get(&other.name));
            here.is_some() && there.is_some() && here != there
        });
        let (resumable, plain): (Vec<_>, Vec<_>) = apart.partition(|(one, _)| one.resumable);
        let some = resumable.iter().take(3).chain(plain.iter().take(1));
        some.map(|(one, _)| one.name.clone()).collect()
    }

    fn expect(&self, goes: &Part, stays: &Part, way: Parting) -> Duration {
        let grace = if goes.resumable {
            GRACE
        } else {
            Duration::ZERO
        };
        let (within, reason, ending) = match way {
            Parting::HangsUp => (AT_ONCE, Some("hangup"), "hung up"),
            Parting::Closes => (AT_ONCE, Some("closed"), "closed"),
            Parting::Vanishes => (AT_ONCE + grace, None, "vanished"),
            Parting::DiesWithNode => {
                let noticed = NODE_TTL * 7 / 5 + AT_ONCE;
                (noticed + grace, None, "died with its node")
            }
        };
        self.history.lock().expectations.push(Expectation {
            who: stays.name.clone(),
            from: goes.name.clone(),
            since: self.history.now(),
            within,
            reason,
            ending,
        });
        within
    }

    /// Waits until each leave has arrived or is late, and a little longer for a second one.
    async fn until_all_left(&self, latest: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < latest {
            {
                let record = self.history.lock();
                let is_heard = |expectation: &Expectation| {
                    let mut newest = record.events.iter().rev();
                    newest
                        .by_ref()
                        .take_while(|event| event.at >= expectation.since)
                        .any(|event| {
                            let left = matches!(&event.what, What::Left { from, .. } if *from == expectation.from);
                            left && *event.who == *expectation.who
                        })
                };
                if record.expectations.iter().all(is_heard) {
                    break;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
    }

    /// Kills the node of one of them; clients of that node do not reconnect.
    async fn die(&mut self, pairs: &[(Part, Part)], dying: &[String]) -> Outcome<()> {
        let mut latest = Duration::ZERO;
        let victim = {
            let mut board = self.stage.board();
            let at = |name: &String| board.at.get(name).copied();
            let Some(victim) = dying.iter().find_map(at) else {
                return Ok(());
            };
            let there = board.at.iter().filter(|(_, node)| **node == victim);
            let doomed: Vec<String> = there.map(|(name, _)| name.clone()).collect();
            board.doomed.extend(doomed);
            victim
        };
        let doomed = self.stage.board().doomed.clone();
        for (one, other) in pairs.iter().filter(|(one, _)| dying.contains(&one.name)) {
            let (goes, stays) = match (doomed.contains(&one.name), doomed.contains(&other.name)) {
                (true, false) => (one, other),
                (false, true) => (other, one),
                _ => continue,
            };
            latest = latest.max(self.expect(goes, stays, Parting::DiesWithNode));
        }
        self.cluster.kill(victim)?;
        self.until_all_left(latest).await;
        self.cluster.revive(victim).await
    }
}
