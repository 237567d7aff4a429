//! Child processes: what only a process can do, die by SIGKILL, stop by SIGSTOP. A [`Process`] is known by the line
//! that it prints when it is up, and is killed, by its pid, when it is dropped.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running child.
pub struct Process {
    child: Child,
    /// Our programs end when their stdin does, so that none outlives a test that was killed.
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    line: String,
}

impl Process {
    /// Starts `program` and waits for its first line on stdout.
    ///
    /// # Panics
    /// If it cannot be started, or ends without a line.
    pub fn spawn(program: impl AsRef<Path>, arguments: &[&str]) -> Process {
        let mut process = Process::spawn_unheard(program.as_ref(), arguments);
        process.hear();
        process
    }

    /// Waits for the first line of one that was started [unheard](Process::spawn_unheard).
    ///
    /// # Panics
    /// If it ends without a line.
    pub fn hear(&mut self) {
        let read = self.stdout.read_line(&mut self.line);
        assert!(matches!(read, Ok(1..)), "process {} ended before it said anything", self.child.id());
    }

    /// Starts `program` without waiting for a line; such a process is not to be asked before it was [heard](Process::hear).
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn_unheard(program: &Path, arguments: &[&str]) -> Process {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = BufReader::new(stdout.expect("it is piped"));
        Process { child, stdin: stdin.expect("it is piped"), stdout, line: String::new() }
    }

    /// The first line that it printed.
    pub fn line(&self) -> &str {
        self.line.trim_end()
    }

    /// Says a line to it, and waits for the line that it answers with.
    ///
    /// # Panics
    /// If it has ended.
    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap_or_else(|error| panic!("it does not hear {line:?}: {error}"));
        let mut answer = String::new();
        let read = self.stdout.read_line(&mut answer);
        assert!(matches!(read, Ok(1..)), "it ended before it answered {line:?}");
        answer.trim_end().to_owned()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("we have not waited for it");
        self.child.wait().expect("it is our child");
    }

    /// SIGTERM: it is asked to end.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it has not within `limit`.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.ended() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(limit, ended).await;
        ended.unwrap_or_else(|_| panic!("{} has not ended within {limit:?}", self.line))
    }

    /// SIGSTOP: it does nothing until [`Process::thaw`], while its kernel side still accepts connections.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }
}

/// Sends a signal to a child of ours that nobody has waited for. After SIGSTOP it returns once the child has stopped:
/// the signal alone lets other threads of it go on for a moment, long enough for an answer.
///
/// # Panics
/// If there is no such child.
pub(crate) fn send(child: &std::process::Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid is an i32"));
    kill(pid, signal).expect("it is our child and we have not waited for it");
    #[cfg(target_os = "linux")]
    if signal == Signal::SIGSTOP {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        // NOWAIT: whoever owns the child still finds all that there is to wait for.
        waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT).expect("it stops");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: {}", self.child.id(), self.line())
    }
}
