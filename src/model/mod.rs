//! Plain values that all modules share: no wire format, no clock, no task.
//!
//! None of them is ever serialized. Each border (`protocol`, `broker::envelope`, `transport`)
//! converts to wire structs of its own, so a changed field of one protocol does not affect another.

mod claims;
mod command;
mod event;
mod fact;
mod frame;
mod ice;
mod id;
mod name;
mod outcome;
mod report;
mod revocation;
mod secret;
mod signal;
mod trace;

pub use claims::{CLOCK_SKEW, Claims, NamePattern, Names};
pub use command::{Command, Correlation, IfAbsent, LeaveTarget, LoginRequest};
pub use event::{AckStatus, Event, Heartbeat, LeaveReason, Pace, Welcome};
pub use fact::{CallFact, CallNews, Fact, What};
pub use frame::Frame;
pub use ice::{IceLogin, IceServer, IceServers};
pub use id::{Address, InvalidAddress, NodeId, Offset, Realm, SessionId};
pub use name::{InvalidName, UserName};
pub use outcome::{Blame, CloseReason, Refusal};
pub use report::{PairKind, PeerState, Report};
pub use revocation::{Revocation, TokenGroup};
pub use secret::{Secret, SecretHash};
pub use signal::{Body, Signal, SignalKind};
pub use trace::{InvalidTraceparent, TraceContext};
