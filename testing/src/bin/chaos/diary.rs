//! What a client keeps across connections: its secret, the last `seq`, the number of its session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::history::History;

/// What a client keeps across its connections.
#[derive(Debug)]
pub(crate) struct Diary {
    pub(crate) history: Arc<History>,
    pub(crate) name: Arc<str>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) secret: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) life: u32,
    /// When anything last arrived on a connection that was logged in.
    pub(crate) heard: Option<Instant>,
}

impl Diary {
    pub(crate) fn new(history: &Arc<History>, name: &str) -> Arc<Self> {
        Arc::new(Self {
            history: Arc::clone(history),
            name: name.into(),
            memory: Mutex::default(),
        })
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
