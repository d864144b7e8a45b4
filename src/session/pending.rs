//! Requests to the broker that a session waits for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::state::{FoundPeer, Input, LostPeer};
use crate::broker::{BrokerError, Entry};
use crate::model::{Address, NodeId};
use crate::router::Router;

/// The pause before another attempt to look lost peers up, when the broker did not answer.
const FIND_AGAIN: Duration = Duration::from_millis(250);

pub(super) type Saved = (u64, Result<bool, BrokerError>);

/// Requests that the broker has not answered yet.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) read: Option<BoxFuture<'static, Result<Vec<Entry>, BrokerError>>>,
    pub(super) find: Option<BoxFuture<'static, Vec<FoundPeer>>>,
    /// `None` until the first save, to keep idle sessions small.
    pub(super) saves: Option<FuturesUnordered<BoxFuture<'static, Saved>>>,
}

impl Pending {
    /// Waits for the next answer.
    pub(super) async fn next(&mut self) -> Input {
        let Self { read, find, saves } = self;
        let input = tokio::select! {
            result = pending(read) => Input::InboxRead(result),
            found = pending(find) => Input::PeersFound(found),
            (number, result) = next_save(saves) => Input::Saved(number, result),
        };
        match &input {
            Input::InboxRead(_) => *read = None,
            Input::PeersFound(_) => *find = None,
            _ => {}
        }
        input
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Reads who holds the names of lost peers. Retries while the broker is away or has lost data: until then, the calls
/// with them go on.
pub(super) async fn find(router: Arc<Router>, peers: Vec<LostPeer>) -> Vec<FoundPeer> {
    let broker = router.broker();
    let addresses: Vec<Address> = peers.iter().map(|peer| peer.address.clone()).collect();
    let nodes: Vec<NodeId> = peers.iter().map(|peer| peer.node.clone()).collect();
    loop {
        let read = async {
            let holders = broker.holders(&addresses).await?;
            // Read last: if the store lost its data before this read, `intact` is false, and the holders are not used.
            let nodes = broker.nodes(&nodes).await?;
            Ok::<_, BrokerError>((holders, nodes))
        };
        match read.await {
            Ok((holders, nodes)) if nodes.intact => {
                let found = peers.into_iter().zip(nodes.alive).zip(holders);
                return found
                    .map(|((peer, alive), holder)| (peer, alive, holder))
                    .collect();
            }
            _ => sleep(FIND_AGAIN).await,
        }
    }
}

async fn pending<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

pub(super) async fn next_save(
    saves: &mut Option<FuturesUnordered<BoxFuture<'static, Saved>>>,
) -> Saved {
    match saves {
        Some(saves) if !saves.is_empty() => match saves.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        },
        _ => std::future::pending().await,
    }
}
