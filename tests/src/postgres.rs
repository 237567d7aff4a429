//! A PostgreSQL of a test's own: a child process in a folder of its own, without a password, on a loopback port.
//!
//! The binaries are what `tests/tools/postgres.sh` found or unpacked, or those in the folder that `POSTGRES_BIN` names.
//! PostgreSQL refuses to run as root: where the tests do, it runs as `nobody`, who then owns the folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::Connection;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::ports::free_port;
use crate::tools;

/// How many run at once in one test binary. Each costs about 60 MB of disk and some processes.
const AT_ONCE: usize = 4;

/// How long one may take to start, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How often another port is tried when the one that was free is taken.
const PORT_TRIES: u32 = 5;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// One running PostgreSQL. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    binaries: Binaries,
    user: Option<User>,
    port: u16,
    child: Mutex<Option<Child>>,
    folder: TempDir,
    _turn: SemaphorePermit<'static>,
}

#[derive(Debug, Clone)]
struct Binaries {
    folder: PathBuf,
    /// For the libraries that the machine lacks.
    libraries: Option<PathBuf>,
}

/// Whom a process of root's runs as.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Starts one and waits until it answers. `None` where the machine has none, which this run then says.
    ///
    /// # Panics
    /// If it does not start; if there is none and `CI=true`.
    pub async fn start() -> Option<Postgres> {
        let Some(binaries) = find() else {
            tools::missing("no PostgreSQL here: run `make tools`, or name a folder in POSTGRES_BIN");
            return None;
        };
        let turn = TURNS.acquire().await.expect("the semaphore is never closed");
        let folder = tempfile::Builder::new().prefix("postgres-").tempdir().expect("a folder");
        let user = unprivileged();
        let binaries = readable(binaries, user, folder.path());
        if let Some(user) = user {
            chown(folder.path(), Some(user.uid), Some(user.gid)).expect("root may");
        }
        let mut postgres = Postgres { binaries, user, port: 0, child: Mutex::new(None), folder, _turn: turn };
        postgres.initialise();
        for _ in 0..PORT_TRIES {
            postgres.port = free_port();
            match postgres.run().await {
                Ok(()) => return Some(postgres),
                Err(error) => eprintln!("{error}: {}", postgres.log_tail()),
            }
        }
        panic!("no PostgreSQL starts in {}", postgres.folder.path().display());
    }

    /// The address of its database, as clients are told it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// A connection of the test's own, to look at the data from outside our code.
    ///
    /// # Panics
    /// If it cannot be had.
    pub async fn connect(&self) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(&self.url()).await.expect("it answers")
    }

    /// Ends it as a crash does: no goodbye to clients, and the log is replayed at the next start.
    ///
    /// # Panics
    /// If it does not end.
    pub fn crash(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // SIGQUIT is PostgreSQL's "immediate shutdown"; SIGKILL would leave its children behind.
            crate::process::send(&child, Signal::SIGQUIT);
            child.wait().expect("it is our child");
        }
    }

    /// Starts it again after [`Postgres::crash`], on its port, and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start_again(&self) {
        self.run().await.unwrap_or_else(|error| panic!("{error}: {}", self.log_tail()));
    }

    fn initialise(&self) {
        let made = self
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("--pgdata")
            .arg(self.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    }

    async fn run(&self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            // No sockets but this one; no waiting for the disk, which no test here takes away.
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "jit=off"])
            .args(["-c", "shared_buffers=16MB", "-c", "max_connections=100"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let answers = async {
            loop {
                if sqlx::PgConnection::connect(&self.url()).await.is_ok() {
                    return Ok(());
                }
                if let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
                    && let Some(status) = child.try_wait()?
                {
                    return Err(io::Error::other(format!("it ended with {status}")));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = |_| Err(io::Error::other(format!("no answer within {START_LIMIT:?}")));
        tokio::time::timeout(START_LIMIT, answers).await.unwrap_or_else(late)
    }

    fn command(&self, program: &str) -> Command {
        command(&self.binaries, self.user, self.folder.path(), program)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
        if std::thread::panicking() {
            eprintln!("--- the end of PostgreSQL's log ---\n{}", self.log_tail());
        }
    }
}

fn find() -> Option<Binaries> {
    let given = std::env::var_os("POSTGRES_BIN")
        .map(|folder| Binaries { folder: PathBuf::from(folder), libraries: None });
    let home = tools::folder().join("postgres");
    let unpacked = Binaries { folder: home.join("bin"), libraries: Some(home.join("lib")) };
    given.into_iter().chain([unpacked]).find(|binaries| binaries.folder.join("initdb").is_file())
}

/// Nobody, where we are root.
fn unprivileged() -> Option<User> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().expect("there is an id");
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().unwrap_or_else(|_| panic!("id {arguments:?} says {text:?}"))
    };
    (id(&["-u"]) == 0).then(|| User { uid: id(&["-u", "nobody"]), gid: id(&["-g", "nobody"]) })
}

/// The binaries where `user` can read them: a build below a private folder of root's is copied into the test's own.
fn readable(binaries: Binaries, user: Option<User>, folder: &Path) -> Binaries {
    let runs = |binaries: &Binaries| {
        let mut command = command(binaries, user, Path::new("/"), "postgres");
        command.arg("--version").output().is_ok_and(|output| output.status.success())
    };
    if runs(&binaries) {
        return binaries;
    }
    let home = fs::canonicalize(&binaries.folder).expect("it was there");
    // .../root/usr/lib/postgresql/15/bin: it finds the rest of itself from where it lies.
    let root = home.ancestors().nth(4).expect("a folder of an installation");
    let copied = Command::new("cp").arg("-RL").arg(root).arg(folder.join("usr")).status();
    assert!(copied.expect("there is a cp").success(), "{} cannot be copied", root.display());
    let bin = folder.join("usr").join(home.strip_prefix(root).expect("it is below"));
    let libraries = binaries.libraries.as_ref().and_then(|libraries| fs::canonicalize(libraries).ok());
    let libraries = libraries.and_then(|lib| Some(folder.join("usr").join(lib.strip_prefix(root).ok()?)));
    let copy = Binaries { folder: bin, libraries };
    // The folder is still ours alone: it is opened for the one that is to read it.
    if let Some(user) = user {
        chown(folder, Some(user.uid), Some(user.gid)).expect("root may");
    }
    assert!(runs(&copy), "PostgreSQL does not run from {}", copy.folder.display());
    copy
}

fn command(binaries: &Binaries, user: Option<User>, folder: &Path, program: &str) -> Command {
    let mut command = Command::new(binaries.folder.join(program));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    // GMT is the one time zone that it knows without files of the system's.
    command.current_dir(folder).env("LC_ALL", "C").env("TZ", "GMT").stdin(Stdio::null());
    if let Some(libraries) = binaries.libraries.as_ref().filter(|folder| folder.is_dir()) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    command
}
