//! Why a home, or its node, does not do what a client asks of its session.

use serde::{Deserialize, Serialize};

use super::super::reject::Rejection;
use crate::fabric::FabricError;

/// Nodes tell each other these words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Denied {
    /// The secret is not that of the session.
    Wrong,
    /// There is no such session any more.
    Gone,
    /// The client has posted as much as may wait.
    Full,
    /// A newer reader took over.
    Replaced,
    /// It takes longer: ask again.
    Later,
    /// The store does not answer this node. Another node reads it as [`Elsewhere`](Self::Elsewhere), and tries itself.
    #[serde(skip_deserializing)]
    Unavailable,
    /// This node drains. Another node reads it as [`Elsewhere`](Self::Elsewhere).
    #[serde(skip_deserializing)]
    Draining,
    /// The session is not at this node.
    #[serde(other)]
    Elsewhere,
}

impl From<FabricError> for Denied {
    fn from(_: FabricError) -> Self {
        Self::Unavailable
    }
}

impl From<Denied> for Rejection {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Wrong => Self::Unauthorized,
            Denied::Gone => Self::SessionGone,
            Denied::Full => Self::TooFast,
            Denied::Replaced => Self::Replaced,
            Denied::Draining => Self::Draining,
            Denied::Elsewhere | Denied::Later | Denied::Unavailable => Self::Unavailable,
        }
    }
}
