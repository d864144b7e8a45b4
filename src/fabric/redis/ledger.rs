//! What a lane's Redis has accepted lately, so that it can be said again to one that has lost it.
//!
//! A primary that dies takes with it what its replica had not got yet; one that is started anew may have lost everything. What was
//! acknowledged in the last seconds is sent again then, before anything newer to the same user: its inbox and its session drop what they have.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Destination, Letter, Sheet};
use crate::fabric::{Envelope, Outcome, Postage, Sent};
use crate::model::SessionId;

/// How long something that was accepted is kept.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// How much is kept at most.
const MOST_LETTERS: usize = 32_768;
const MOST_BYTES: usize = 16 << 20;
/// How many users are remembered of whom something was dropped.
const MOST_UNCOVERED: usize = 10_000;
/// How often it is seen who of them need not be.
const SIFT: Duration = Duration::from_secs(1);
/// How long users may take to come back to a store that has forgotten them.
const OWED_FOR: Duration = Duration::from_secs(15);
/// How often those are tried who have not come back yet.
const RETRY_OWED: Duration = Duration::from_millis(250);

/// What was accepted, and what is owed to a store that has lost it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    kept: VecDeque<Kept>,
    bytes: usize,
    owed: HashMap<Arc<Destination>, Owed>,
    /// Who was sent what had to be dropped before its time, and since when: all that can be told them is that they may have missed something.
    uncovered: HashMap<Arc<Destination>, Kept>,
    /// When it was seen last who of them need not be remembered any more.
    sifted_at: Option<Instant>,
    owed_until: Option<Instant>,
    retry_at: Option<Instant>,
}

/// What is owed to one user.
#[derive(Debug)]
struct Owed {
    letters: VecDeque<Kept>,
    /// When it should be tried.
    at: Instant,
}

/// A letter that was accepted.
#[derive(Debug)]
struct Kept {
    to: Arc<Destination>,
    session: SessionId,
    sheet: Sheet,
    at: Instant,
}

impl Ledger {
    /// Enters what became of a letter; `again` if it was one that was owed.
    pub(super) fn enter(
        &mut self,
        to: &Arc<Destination>,
        postage: Postage,
        sheet: Sheet,
        again: bool,
        outcome: &Outcome,
    ) {
        match outcome {
            // Whoever lets signals go without an id, to somebody who will not come back for them, was promised nothing.
            Ok(Sent::To(holder) | Sent::Again(holder))
                if again || sheet.once.is_some() || postage.urgent || holder.flags.resumable =>
            {
                self.keep(Kept {
                    to: Arc::clone(to),
                    session: holder.session,
                    sheet,
                    at: Instant::now(),
                });
            }
            Ok(Sent::To(_) | Sent::Again(_)) => {}
            Ok(Sent::Absent | Sent::Full(_)) | Err(_) => {
                if let (true, Some(session)) = (again, postage.only) {
                    let kept = Kept {
                        to: Arc::clone(to),
                        session,
                        sheet,
                        at: Instant::now(),
                    };
                    self.put(kept, Instant::now() + RETRY_OWED);
                }
            }
        }
    }

    fn keep(&mut self, kept: Kept) {
        let oldest = kept.at - KEPT_FOR;
        self.bytes += kept.sheet.bytes.len();
        self.kept.push_back(kept);
        while let Some(first) = self.kept.front()
            && (first.at < oldest || self.kept.len() > MOST_LETTERS || self.bytes > MOST_BYTES)
            && let Some(gone) = self.kept.pop_front()
        {
            self.bytes -= gone.sheet.bytes.len();
            if gone.at >= oldest {
                self.uncover(gone);
            }
        }
    }

    /// A letter is dropped before its time: should it be lost, its receiver is told so.
    fn uncover(&mut self, gone: Kept) {
        if let Some(word) = self.uncovered.get_mut(&gone.to)
            && word.session == gone.session
        {
            word.at = gone.at;
            return;
        }
        let now = Instant::now();
        if self.uncovered.len() >= MOST_UNCOVERED && self.sifted_at.is_none_or(|at| at + SIFT < now)
        {
            self.uncovered.retain(|_, word| word.at + KEPT_FOR >= now);
            self.sifted_at = Some(now);
        }
        if self.uncovered.len() < MOST_UNCOVERED {
            let word = Kept {
                sheet: Sheet {
                    bytes: Envelope::missed_after(&gone.sheet.bytes),
                    once: None,
                },
                ..gone
            };
            self.uncovered.insert(Arc::clone(&word.to), word);
        }
    }

    /// The store may have lost everything: all that is kept is owed from here on.
    pub(super) fn owe(&mut self) {
        let now = Instant::now();
        let mut kept = std::mem::take(&mut self.kept);
        self.bytes = 0;
        for word in std::mem::take(&mut self.uncovered).into_values() {
            kept.push_front(word);
        }
        if let Some(last) = kept.back().map(|kept| kept.at) {
            kept.retain(|kept| last.saturating_duration_since(kept.at) <= KEPT_FOR);
        }
        for kept in kept {
            self.put(kept, now);
        }
        self.owed_until = Some(now + OWED_FOR);
    }

    fn put(&mut self, kept: Kept, at: Instant) {
        let fresh = || Owed {
            letters: VecDeque::new(),
            at,
        };
        let owed = self.owed.entry(Arc::clone(&kept.to)).or_insert_with(fresh);
        owed.letters.push_back(kept);
        self.retry_at = Some(self.retry_at.map_or(at, |known| known.min(at)));
    }

    /// Whether anything is owed to this user: it goes before whatever is sent now.
    pub(super) fn owes(&self, to: &Arc<Destination>) -> bool {
        !self.owed.is_empty() && self.owed.contains_key(to)
    }

    /// What is owed to this user.
    pub(super) fn pay(&mut self, to: &Arc<Destination>) -> Vec<Letter> {
        let owed = self.owed.remove(to).map(|owed| owed.letters);
        let letters = owed.unwrap_or_default().into_iter();
        letters.map(Kept::into_letter).collect()
    }

    /// Some letters that are owed, if it is time to try: those to one user together, so many users that there are hardly more.
    pub(super) fn pay_some(&mut self, most: usize) -> Vec<Letter> {
        let now = Instant::now();
        if self.retry_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.owed_until.is_none_or(|until| until < now) {
            self.owed.clear();
        }
        let due = self.owed.iter().filter(|(_, owed)| owed.at <= now);
        let users: Vec<_> = due.map(|(user, _)| Arc::clone(user)).collect();
        let mut letters = Vec::new();
        for user in users {
            if letters.len() >= most {
                break;
            }
            letters.extend(self.pay(&user));
        }
        self.retry_at = self.owed.values().map(|owed| owed.at).min();
        letters
    }

    /// When something that is owed should be tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.retry_at
    }
}

impl Kept {
    fn into_letter(self) -> Letter {
        Letter {
            to: self.to,
            postage: Postage {
                only: Some(self.session),
                // It had its place before.
                urgent: true,
            },
            sheet: self.sheet,
            receipt: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Flags, Holder};
    use crate::model::NodeId;

    fn to(name: &str) -> Arc<Destination> {
        Arc::new(Destination {
            presence: name.to_owned(),
            inbox: String::new(),
            channel: String::new(),
        })
    }

    fn accepted(ledger: &mut Ledger, to: &Arc<Destination>, text: &str, resumable: bool) {
        let holder = Holder {
            node: NodeId::known("n"),
            session: SessionId::random(),
            attach: 0,
            flags: Flags {
                resumable,
                detached: false,
            },
        };
        let sheet = Sheet {
            bytes: text.into(),
            once: None,
        };
        ledger.enter(to, Postage::default(), sheet, false, &Ok(Sent::To(holder)));
    }

    fn texts(letters: &[Letter]) -> Vec<&[u8]> {
        letters.iter().map(|letter| &*letter.sheet.bytes).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_accepted_lately_is_owed_in_its_order() {
        let (mut ledger, a, b) = (Ledger::default(), to("a"), to("b"));
        accepted(&mut ledger, &a, "old", true);
        tokio::time::advance(Duration::from_secs(11)).await;
        accepted(&mut ledger, &a, "1", true);
        accepted(&mut ledger, &b, "plain", false);
        accepted(&mut ledger, &a, "2", true);
        assert!(ledger.pay_some(10).is_empty(), "nothing is owed yet");
        // However long the store is away.
        tokio::time::advance(Duration::from_mins(1)).await;
        ledger.owe();
        assert!(ledger.owes(&a) && !ledger.owes(&b));
        let letters = ledger.pay(&a);
        assert_eq!(texts(&letters), [b"1", b"2"]);
        assert!(!ledger.owes(&a));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_back_yet_is_tried_again_for_a_while() {
        let (mut ledger, a) = (Ledger::default(), to("a"));
        accepted(&mut ledger, &a, "1", true);
        ledger.owe();
        for _ in 0..3 {
            for letter in ledger.pay_some(10) {
                let Letter {
                    to, postage, sheet, ..
                } = letter;
                ledger.enter(&to, postage, sheet, true, &Ok(Sent::Absent));
            }
            assert!(ledger.pay_some(10).is_empty(), "not at once");
            tokio::time::advance(RETRY_OWED).await;
        }
        tokio::time::advance(OWED_FOR).await;
        assert!(ledger.pay_some(10).is_empty(), "given up");
        assert!(!ledger.owes(&a));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded() {
        let (mut ledger, a) = (Ledger::default(), to("a"));
        let text = "x".repeat(1 << 20);
        for _ in 0..100 {
            accepted(&mut ledger, &a, &text, true);
        }
        assert!(ledger.bytes <= MOST_BYTES);
        ledger.owe();
        let letters = ledger.pay(&a);
        assert!(letters[0].sheet.bytes.ends_with(b"missed 0 0\n"));
        assert!(letters.len() < 100);
    }
}
