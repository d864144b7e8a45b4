//! How far an HTTP session has come, for the node that continues it.

use std::sync::Arc;

use crate::model::{Claims, Offset, Realm, Secret, SecretHash, UserName};

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
}

impl Progress {
    /// Whether both are of one user with one token.
    pub fn is_same_user(&self, other: &Self) -> bool {
        (&self.user, &self.realm, &self.claims) == (&other.user, &other.realm, &other.claims)
    }
}
