//! The words that every room shares: plain values, no wire format, no clock, no task.
//!
//! Nothing here is ever serialized. Each border (`dialect`, `broker::envelope`, `edge`) keeps wire structs of its own and converts, so
//! a field that changes in one language cannot ripple into another.

mod command;
mod event;
mod frame;
mod ice;
mod id;
mod outcome;
mod report;
mod secret;
mod signal;
mod trace;

pub use command::{Command, Correlation, IfAbsent, LeaveTarget, LoginRequest};
pub use event::{AckStatus, Event, LeaveReason, Welcome};
pub use frame::Frame;
pub use ice::{IceLogin, IceServer, IceServers};
pub use id::{Address, InvalidAddress, InvalidName, NodeId, Offset, Realm, SessionId, UserName};
pub use outcome::{Blame, CloseReason, Refusal};
pub use report::{PairKind, PeerState, Report};
pub use secret::{Secret, SecretHash};
pub use signal::{Body, Signal, SignalKind};
pub use trace::{InvalidTraceparent, TraceContext};
