//! Many users who log in and say nothing: what each costs in memory.

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
/// For what follows a login inside the servers.
const SETTLE: Duration = Duration::from_secs(1);

pub(crate) async fn run(servers: &Servers, subject: Subject, users: usize) -> Outcome<Measured> {
    let before = resident_kib(servers)?;
    let start = Reading::take(servers)?;
    let logins = stream::iter(0..users).map(|number| async move {
        let begun = Instant::now();
        let client = Client::login(
            servers.doors[number % 2],
            subject,
            &format!("idle{number:05}"),
        )
        .await?;
        Outcome::Ok((
            client,
            u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX),
        ))
    });
    let (mut clients, latencies): (Vec<_>, Vec<_>) = logins
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?
        .into_iter()
        .unzip();
    let mut usage = Usage::default();
    usage.worked(&start, &Reading::take(servers)?);
    sleep(SETTLE).await;
    let kib_each = (resident_kib(servers)? - before) / users as f64;
    for client in &mut clients {
        client.expect_silence()?;
    }
    Ok(Measured {
        count: users,
        latency: percentiles(latencies),
        usage,
        kib_each: Some(kib_each),
    })
}
