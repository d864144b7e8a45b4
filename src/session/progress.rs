//! How far an HTTP session has come, for the node that continues it.

use std::sync::Arc;

use crate::model::{Claims, Correlation, Offset, Realm, Secret, SecretHash, UserName};

/// A session that any node can continue.
#[derive(Debug)]
pub struct HttpSession {
    /// The secret of the login is derived from this one, so every node derives the same.
    pub secret: Secret,
    /// How far the session came on another node; `None` for a new session.
    pub resume_from: Option<ResumePoint>,
}

/// How far a session came on another node.
#[derive(Clone, Debug)]
pub struct ResumePoint {
    /// The progress that the node recorded.
    pub progress: Progress,
    /// The last inbox entry that the client is known to have.
    pub last: Option<Offset>,
    /// The client may not have the login reply yet, so it is sent again.
    pub greet: bool,
}

/// What another node needs to continue a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The logged-in user, with the stored hash of the session's secret.
    pub user: Option<(UserName, SecretHash)>,
    /// The realm of the user.
    pub realm: Realm,
    /// What the user's token says, if there is one.
    pub claims: Option<Arc<Claims>>,
    /// Inbox entries up to this offset were confirmed before this node took over.
    pub confirmed: Offset,
    /// What the client has to repeat before later signals to the same users.
    pub held_back: Vec<FirstRefused>,
}

/// The first signal to a user that was refused for now and is not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstRefused {
    /// Its receiver.
    pub to: UserName,
    /// Its id.
    pub id: Correlation,
    /// The receiver had no room for it, so what follows waits for its outcome.
    pub needs_room: bool,
    /// What follows is held back until then, in seconds since 1970.
    pub until: u64,
}

impl Progress {
    /// Whether a stored copy of one can stand for the other.
    pub fn is_stored_alike(&self, other: &Self) -> bool {
        (&self.user, &self.realm, &self.claims, &self.held_back)
            == (&other.user, &other.realm, &other.claims, &other.held_back)
    }
}
