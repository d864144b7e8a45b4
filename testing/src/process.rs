//! A child process that cannot outlive the test that started it.

use std::io;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::eventually;

const POLL_EVERY: Duration = Duration::from_millis(10);

/// Raises the limit of open files to the first argument, then becomes the program with the same pid.
const WITH_OPEN_FILES: &str = r#"ulimit -n "$0" && exec "$@""#;

/// A running process. It is killed when this value is dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program without stdin, stdout and stderr; `configure` adds arguments and may change that.
    ///
    /// `setpriv` asks the kernel to kill the process if the test is killed and cannot clean up.
    pub fn start(program: &str, configure: impl FnOnce(&mut Command)) -> io::Result<Self> {
        Self::start_within(&[], program, configure)
    }

    /// Like [`start`](Self::start); `files` raises the limit of open files.
    pub fn start_with_open_files(
        files: Option<usize>,
        program: &str,
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let Some(files) = files.map(|files| files.to_string()) else {
            return Self::start(program, configure);
        };
        Self::start_within(&["sh", "-c", WITH_OPEN_FILES, &files], program, configure)
    }

    /// Whether this process may raise its children's limit of open files this far.
    pub fn may_open_files(files: usize) -> io::Result<bool> {
        let status = Command::new("sh")
            .args(["-c", WITH_OPEN_FILES, &files.to_string(), "true"])
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    }

    /// Like [`start`](Self::start), by a command that becomes the program.
    pub fn start_within(
        wrapper: &[&str],
        program: &str,
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(wrapper)
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        configure(&mut command);
        let child = command.spawn().map_err(|error| {
            let text = format!("cannot start {program} through setpriv (util-linux): {error}");
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The piped stdin; `None` if it is not piped, or was taken before.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The piped stdout; `None` if it is not piped, or was taken before.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The piped stderr; `None` if it is not piped, or was taken before.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Sends a signal by its name without `SIG`, such as `KILL` or `STOP`.
    pub fn try_signal(&self, name: &str) -> io::Result<()> {
        let pid = self.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("kill -{name} {pid} failed")))
        }
    }

    /// Like [`try_signal`](Self::try_signal), and panics if it fails.
    pub fn signal(&self, name: &str) {
        self.try_signal(name).unwrap();
    }

    /// How the process ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok()?
    }

    /// Waits until the process has ended; its exit code, `None` if a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        let status = eventually("the process ends", async || self.exit_status()).await;
        status.code()
    }

    /// Waits at most this long; `None` if the process still runs then.
    pub async fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.exit_status();
            if status.is_some() || start.elapsed() > time {
                return status;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        resident_kib(self.id()).expect("the process runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process, in KiB; `None` if it has ended.
pub fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
