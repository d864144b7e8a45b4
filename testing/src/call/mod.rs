//! One side of a call that keeps going through faults: numbered signals, each repeated until it is acknowledged, over
//! a resumed session.

mod run;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::eventually;
use run::Run;

/// The addresses that clients connect to. A test removes a node before it kills it.
pub type Endpoints = Arc<Mutex<Vec<SocketAddr>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Send,
    /// Send nothing new.
    Pause,
    /// Break the connection and stay away.
    Disconnect,
    /// Close for good.
    Close,
}

/// What happened to one side of a call.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The highest number that was acknowledged.
    pub acked: u64,
    /// The highest number that was sent.
    pub sent: u64,
    /// The numbers that arrived, in order of arrival.
    pub received: Vec<u64>,
    /// The longest time between two arrivals.
    pub longest_silence: Duration,
    received_at: Option<Instant>,
    pub leaves: Vec<Value>,
    pub resumes: usize,
    /// Replies to logins that were refused for good.
    pub refused: Vec<Value>,
    /// How often the node reported that messages may have been missed.
    pub missed: usize,
    pub statuses: usize,
    /// How often it connected again, or a signal was refused for now.
    pub retries: usize,
    /// Handshakes that were refused or broke off.
    pub failed_upgrades: usize,
    /// The close codes of its connections; `None` for one that broke.
    pub closes: Vec<Option<u16>>,
    /// Where it is connected now.
    pub at: Option<SocketAddr>,
    is_over: bool,
}

/// One side of a call. Dropped, it breaks its connection.
#[derive(Debug)]
pub struct Party {
    pub name: String,
    log: Arc<Mutex<Log>>,
    order: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Party {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Party {
    /// Logs in at a random endpoint and sends a signal to its peer every so often. `is_caller`: its first signal is
    /// an offer.
    pub fn start(
        endpoints: &Endpoints,
        name: &str,
        peer: &str,
        is_caller: bool,
        every: Duration,
    ) -> Self {
        let log = Arc::<Mutex<Log>>::default();
        let (order, orders) = watch::channel(Order::Send);
        let run = Run {
            endpoints: Arc::clone(endpoints),
            name: name.to_owned(),
            peer: peer.to_owned(),
            every,
            log: Arc::clone(&log),
            orders,
            secret: None,
            last: None,
            is_caller,
            pending: None,
            next_at: Instant::now(),
        };
        Self {
            name: name.to_owned(),
            log,
            order,
            task: tokio::spawn(run.run()),
        }
    }

    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Sends nothing new.
    pub fn pause(&self) {
        self.order.send_replace(Order::Pause);
    }

    /// Sends nothing new, and waits until everything sent is acknowledged.
    pub async fn settle(&self) {
        self.pause();
        eventually(&format!("{} is acknowledged", self.name), async || {
            let log = self.log.lock().unwrap();
            (log.acked == log.sent && log.at.is_some()).then_some(())
        })
        .await;
    }

    /// Sends again, after [`pause`](Self::pause) or [`disconnect`](Self::disconnect).
    pub fn proceed(&self) {
        self.order.send_replace(Order::Send);
    }

    /// Breaks its connection, and stays away until it may [`proceed`](Self::proceed).
    pub async fn disconnect(&self) {
        self.order.send_replace(Order::Disconnect);
        eventually("it is disconnected", async || {
            self.log.lock().unwrap().at.is_none().then_some(())
        })
        .await;
    }

    /// Closes for good, without waiting.
    pub fn begin_close(&self) {
        self.order.send_replace(Order::Close);
    }

    /// Closes for good.
    pub async fn close(&self) {
        self.begin_close();
        eventually("it has closed", async || {
            self.log.lock().unwrap().is_over.then_some(())
        })
        .await;
    }

    /// Waits until the signal of this number, or a later one, has arrived.
    pub async fn receives(&self, number: u64) {
        eventually(&format!("{} receives {number}", self.name), async || {
            let log = self.log.lock().unwrap();
            (log.received.last().copied().unwrap_or_default() >= number).then_some(())
        })
        .await;
    }
}

/// Fails unless the receiver got the sender's signals in order, each at most once.
pub fn assert_in_order(sender: &Party, receiver: &Party) {
    let numbers = receiver.log().received;
    for pair in numbers.windows(2) {
        let (earlier, later) = (pair[0], pair[1]);
        assert!(
            earlier < later,
            "{} received {later} from {} after {earlier}",
            receiver.name,
            sender.name
        );
    }
}

/// Fails unless the receiver got all of the sender's signals in order, each once.
pub fn assert_received(sender: &Party, receiver: &Party) {
    let (sent, numbers) = (sender.log(), receiver.log().received);
    let expected: Vec<u64> = (1..=sent.sent).collect();
    if numbers != expected {
        let at = numbers
            .iter()
            .zip(&expected)
            .position(|(number, expected)| number != expected)
            .unwrap_or(numbers.len().min(expected.len()));
        panic!(
            "{} sent {}; {}, which resumed {} times, received {} of them, from position {at} on {:?}",
            sender.name,
            sent.sent,
            receiver.name,
            receiver.log().resumes,
            numbers.len(),
            &numbers[at..numbers.len().min(at + 8)]
        );
    }
}
