//! How many sessions fit into the memory that this process may use.

use std::fs;

/// What a session takes: 14 KiB while idle, and room for what waits for it.
const SESSION_BYTES: u64 = 24 << 10;
/// What a node takes without sessions.
const NODE_BYTES: u64 = 64 << 20;

/// Where the kernel tells the limit of a container's memory: control groups of version 2 and 1.
const LIMIT_FILES: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];
/// Version 1 has no word for no limit; it tells the largest number of pages.
const NO_LIMIT: u64 = 1 << 62;

/// As many sessions as fit into the memory limit of this container; `None` if there is no limit.
pub fn sessions_that_fit() -> Option<usize> {
    let texts = LIMIT_FILES.map(|file| fs::read_to_string(file).ok());
    texts.iter().flatten().find_map(|text| fitting(text))
}

/// As many as fit into the limit that a file tells.
fn fitting(limit: &str) -> Option<usize> {
    let bytes: u64 = limit
        .trim()
        .parse()
        .ok()
        .filter(|bytes| *bytes < NO_LIMIT)?;
    let sessions = bytes.saturating_sub(NODE_BYTES) / SESSION_BYTES;
    usize::try_from(sessions.max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_fit_into_the_limit_of_the_container() {
        assert_eq!(fitting("536870912\n"), Some(19_114));
        assert_eq!(fitting("1048576\n"), Some(1));
        for none in ["max\n", "9223372036854771712\n", ""] {
            assert_eq!(fitting(none), None, "{none}");
        }
    }
}
