//! The Lua scripts. Each header tells what a script does, what it takes and what it returns.

use redis::{Cmd, Pipeline, Script};

/// All scripts. They are loaded on every connection before it is used, since EVALSHA fails for a script that Redis does
/// not have.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) claim: Loaded,
    pub(super) renew: Loaded,
    pub(super) release: Loaded,
    pub(super) send: Loaded,
    pub(super) heartbeat: Loaded,
    pub(super) read: Loaded,
    pub(super) resume: Loaded,
    pub(super) save: Loaded,
    pub(super) fact: Loaded,
    pub(super) lead: Loaded,
    pub(super) revoke: Loaded,
}

/// One script with its hash.
#[derive(Debug)]
pub(super) struct Loaded {
    text: &'static str,
    hash: String,
}

impl Default for Scripts {
    fn default() -> Self {
        let script = |text| Loaded {
            text,
            hash: Script::new(text).get_hash().to_owned(),
        };
        Self {
            claim: script(include_str!("claim.lua")),
            renew: script(include_str!("renew.lua")),
            release: script(include_str!("release.lua")),
            send: script(include_str!("send.lua")),
            heartbeat: script(include_str!("heartbeat.lua")),
            read: script(include_str!("read.lua")),
            resume: script(include_str!("resume.lua")),
            save: script(include_str!("save.lua")),
            fact: script(include_str!("fact.lua")),
            lead: script(include_str!("lead.lua")),
            revoke: script(include_str!("revoke.lua")),
        }
    }
}

impl Scripts {
    /// The pipeline that loads them all.
    pub(super) fn load(&self) -> Pipeline {
        let Self {
            claim,
            renew,
            release,
            send,
            heartbeat,
            read,
            resume,
            save,
            fact,
            lead,
            revoke,
        } = self;
        let mut load = Pipeline::new();
        let all = [
            claim, renew, release, send, heartbeat, read, resume, save, fact, lead, revoke,
        ];
        for script in all {
            load.cmd("SCRIPT").arg("LOAD").arg(script.text);
        }
        load
    }
}

impl Loaded {
    /// A call with these keys, to which arguments can be appended.
    pub(super) fn on<'k>(&self, keys: impl IntoIterator<Item = &'k String>) -> Cmd {
        self.with_capacity(keys, 8, 512)
    }

    /// The same, with capacity for so many arguments of so many bytes.
    pub(super) fn with_capacity<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k String>,
        args: usize,
        bytes: usize,
    ) -> Cmd {
        let keys: Vec<&String> = keys.into_iter().collect();
        let bytes_of_keys: usize = keys.iter().map(|key| key.len()).sum();
        let mut call = Cmd::with_capacity(keys.len() + args + 3, bytes_of_keys + bytes + 64);
        call.arg("EVALSHA");
        call.arg(&self.hash).arg(keys.len()).arg(keys);
        call
    }
}
