//! Many users who log in and then say nothing: what a login costs, in turns of a hundred, and what each idle user costs in memory.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use crate::Outcome;
use crate::client::Client;
use crate::gauge::{Reading, Usage, resident_kib};
use crate::scenario::{Measured, percentiles};
use crate::server::{Servers, Subject};

/// Logins under way at once.
const AT_ONCE: usize = 32;
/// Logins at one subject before the next one has its turn: few, so that pings never wait for long.
const TURN: usize = 100;
/// For what follows a login inside the servers.
const SETTLE: Duration = Duration::from_secs(1);

/// One subject: its servers and the clients that are logged in.
struct IdleClients {
    subject: Subject,
    servers: Servers,
    /// Memory of the servers before the first login, in KiB.
    empty_kib: [f64; 2],
    clients: Vec<Client>,
    latencies: Vec<u32>,
    usage: Usage,
}

pub(crate) async fn run(subjects: &[Subject], users: usize) -> Outcome<Vec<Measured>> {
    let mut crowds = Vec::new();
    for &subject in subjects {
        let set_up = IdleClients::set_up(subject).await;
        crowds.push(set_up.map_err(|error| format!("{}: {error}", subject.name()))?);
    }
    for first in (0..users).step_by(TURN) {
        for connections in &mut crowds {
            let admitted = connections.admit(first..users.min(first + TURN)).await;
            admitted.map_err(|error| format!("{}: {error}", connections.subject.name()))?;
        }
    }
    sleep(SETTLE).await;
    let measured = crowds.into_iter().map(|connections| {
        let name = connections.subject.name();
        connections
            .close()
            .map_err(|error| format!("{name}: {error}"))
    });
    Ok(measured.collect::<Result<_, _>>()?)
}

impl IdleClients {
    async fn set_up(subject: Subject) -> Outcome<Self> {
        let servers = subject.start().await?;
        Ok(Self {
            subject,
            empty_kib: resident_kib(&servers)?,
            servers,
            clients: Vec::new(),
            latencies: Vec::new(),
            usage: Usage::default(),
        })
    }

    /// Logs some users in. Those who already are answer pings first: nodes close silent connections.
    async fn admit(&mut self, users: Range<usize>) -> Outcome<()> {
        for client in &mut self.clients {
            client.expect_silence()?;
            client.flush().await?;
        }
        let (subject, endpoints) = (self.subject, self.servers.endpoints);
        let start = Reading::take(&self.servers)?;
        let logins = stream::iter(users).map(|number| async move {
            let begun = Instant::now();
            let name = format!("idle{number:05}");
            let client = Client::login(endpoints[number % 2], subject, &name).await?;
            let took = u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX);
            Outcome::Ok((client, took))
        });
        let admitted: Vec<_> = logins.buffer_unordered(AT_ONCE).try_collect().await?;
        self.usage.worked(&start, &Reading::take(&self.servers)?);
        for (client, took) in admitted {
            self.clients.push(client);
            self.latencies.push(took);
        }
        Ok(())
    }

    /// What all of its turns came to.
    fn close(mut self) -> Outcome<Measured> {
        let count = self.clients.len();
        let [nodes, redis] = resident_kib(&self.servers)?;
        let each = |now: f64, empty: f64| (now - empty) / count as f64;
        let kib_each = [
            each(nodes, self.empty_kib[0]),
            each(redis, self.empty_kib[1]),
        ];
        for client in &mut self.clients {
            client.expect_silence()?;
        }
        Ok(Measured {
            count,
            latency: percentiles(self.latencies),
            usage: self.usage,
            kib_each: Some(kib_each),
        })
    }
}
