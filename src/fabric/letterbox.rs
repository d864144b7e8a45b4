//! Letterboxes: conversations whose wire is kept by the store, so that any node can go on with them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::FabricError;
use super::wakes::Ear;
use crate::model::{Address, EntryId, NodeId, Realm, SecretHash, SessionId, UserName};

/// How much a letterbox keeps of what its client has said and nobody has dealt with yet.
pub const UPLINK: Bounds = Bounds {
    entries: 256,
    bytes: 1 << 20,
};
/// How much it keeps of what its client was told: whoever comes back for more than this has lost something, and is told so.
pub const DOWNLINK: Bounds = Bounds {
    entries: 1024,
    bytes: 1 << 20,
};
/// How many idempotency keys are remembered, at least, and how long.
pub const KEYS: usize = 256;
/// How long they are.
pub const KEYS_LIVE: Duration = Duration::from_mins(1);
/// How long a letterbox is kept that nobody touches: longer than any stall of the store, since its carrier decides when its client is gone.
pub const LIVES: Duration = Duration::from_mins(10);
/// How long the last words of a conversation that is over can be read.
pub const LAST_WORDS_LIVE: Duration = Duration::from_secs(30);
/// How many entries are read at once.
pub const READ_AT_ONCE: usize = 256;

/// The letterboxes of a store. Each has two streams: the uplink, of what its client says, and the downlink, of what it is told. One node carries
/// the conversation on at a time: its carrier. `tests/it/letterboxes.rs` holds every implementation to these promises:
///
/// 1. [`post`](Self::post) takes all of its frames or none, behind those before, and once for every idempotency key.
/// 2. [`tell`](Self::tell) is one atomic step, takes effect once however often it is repeated, and none after another node has
///    [taken](Self::take) the letterbox.
/// 3. [`take`](Self::take) is won by one of those who saw the same carrier.
/// 4. What was told stays readable for its client behind any place, on any node, within [`DOWNLINK`]; beyond it the reader is told of a reset.
/// 5. One reader is the client's: an earlier one hears that it was replaced.
/// 6. What was given up, by an error, has no effect later; but for [`tell`](Self::tell), which is repeated.
/// 7. Whoever listens is woken for news. A wake may be lost: it is late then, until the next look.
#[async_trait]
pub trait Letterboxes: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a letterbox, with what its client has said already; this node carries it.
    async fn open(&self, key: &Key, said: Vec<Bytes>) -> Result<(), FabricError>;

    /// Whether there is such a letterbox, and who has logged in by it.
    async fn look(&self, key: &Key) -> Result<Entered<Look>, FabricError>;

    /// The client says something, or closes (`None`).
    async fn post(&self, key: &Key, post: Post) -> Result<Entered<Posted>, FabricError>;

    /// The client begins to read: any earlier reader is replaced. The number of the reader.
    async fn attach(&self, key: &Key) -> Result<Entered<u64>, FabricError>;

    /// What the client was told after this place. A sign of life of the client.
    async fn read(
        &self,
        key: &Key,
        reader: u64,
        after: Option<EntryId>,
    ) -> Result<Entered<Read>, FabricError>;

    /// Carries the conversation on in place of the carrier of this epoch, if it is still that one's.
    async fn take(&self, session: SessionId, epoch: u64) -> Result<Option<Taken>, FabricError>;

    /// What the client has said after this place, for its carrier.
    async fn hear(
        &self,
        session: SessionId,
        epoch: u64,
        after: EntryId,
    ) -> Result<Heard, FabricError>;

    /// The carrier tells the client something, and notes how far it has come. `number` counts what this carrier tells. False if the letterbox is
    /// somebody else's by now, or gone.
    async fn tell(
        &self,
        session: SessionId,
        epoch: u64,
        number: u64,
        telling: Arc<Telling>,
    ) -> Result<bool, FabricError>;

    /// Listens for news of a letterbox.
    fn listen(&self, session: SessionId) -> Ear;
}

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Bytes.
    pub bytes: usize,
}

/// Which letterbox, and the proof that it is one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which.
    pub session: SessionId,
    /// What is stored of its secret.
    pub hash: SecretHash,
}

/// Where the letterbox of a session is, among the users: in a realm that no user can log in to.
pub fn address(session: SessionId) -> Address {
    let name = UserName::parse(&session.to_string());
    Address::new(
        Realm::new("http"),
        name.unwrap_or_else(|_| unreachable!("hexadecimal digits are a name")),
    )
}

/// What became of an attempt to get at a letterbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered<T> {
    /// It is one's own.
    In(T),
    /// There is none, or its conversation is over.
    Gone,
    /// The secret is not that of the letterbox.
    Wrong,
}

/// What a client says at once.
#[derive(Clone, Debug, Default)]
pub struct Post {
    /// The frames, in order; `None`: it closes.
    pub said: Option<Vec<Bytes>>,
    /// The client's own key for this: said again under it, it has been said.
    pub once: Option<String>,
}

/// What became of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// So many frames were taken, now or under the same key before.
    Accepted(usize, Carrier),
    /// As much waits to be heard as may.
    Full(Carrier),
}

/// Who carries a conversation on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// The node; nobody, after it was handed over.
    pub node: Option<NodeId>,
    /// Counts the carriers.
    pub epoch: u64,
}

/// What is known of a letterbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What its carriers have noted, by field.
    pub notes: Vec<(String, String)>,
    /// Who carries it.
    pub carrier: Carrier,
}

/// What a client is told at its letterbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// What it was told, oldest first.
    Events {
        /// Each with its place.
        events: Vec<(EntryId, Bytes)>,
        /// Something before them is not kept any more.
        reset: bool,
        /// Who carries the conversation.
        carrier: Carrier,
    },
    /// A newer reader is the client's.
    Replaced,
}

/// A letterbox that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Ours.
    pub epoch: u64,
    /// Everything that its client said up to here was dealt with.
    pub cursor: EntryId,
    /// What the carriers before have noted, by field.
    pub notes: Vec<(String, String)>,
}

/// What a carrier hears of its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What it said, oldest first; `None`: it closed.
    Said {
        /// Each with its place.
        entries: Vec<(EntryId, Option<Bytes>)>,
        /// How long ago its last sign of life was.
        idle: Duration,
    },
    /// Another node carries the conversation.
    Taken,
    /// There is no such letterbox any more.
    Gone,
}

/// What a carrier tells at once.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// What the client is told, in order.
    pub told: Vec<Bytes>,
    /// Everything that the client said up to here was dealt with.
    pub cursor: Option<EntryId>,
    /// What the next carrier must know, by field.
    pub notes: Vec<(String, String)>,
    /// How the carrier ends with it.
    pub then: Then,
}

/// What comes after something was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// More.
    #[default]
    GoesOn,
    /// Whoever wants may carry it on.
    HandedOver,
    /// Nothing: the conversation is over.
    Over,
}
