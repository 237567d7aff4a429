//! Many registrations in a process of its own, to be killed, stopped and cut off, and to be asked how it is.
//! `instances ETCD[,ETCD...] NAME COUNT TTL_S` registers `<NAME>-0` and so on, prints a line once all are in etcd, and then
//! answers each line on stdin with one on stdout: `stats`, `cycle N`, `fail N`. SIGTERM says goodbye; so does nothing
//! else. It ends with 1 when a goodbye failed, and with 4 when another process has taken over one of its ids.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use svc_registry::{
    Error, Etcd, EtcdConfig, Instance, Registrar, RegistrarConfig, Registration, RegistrationStatus,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How many registrations a cycle has under way at once.
const AT_ONCE: usize = 50;

/// The exit code of one that another process has taken over.
const TAKEN_OVER: u8 = 4;

// One thread: its memory is one heap, which a leak shows in.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [etcd, name, count, ttl] = arguments.as_slice() else { return ExitCode::from(2) };
    match Box::pin(run(etcd, name, count.parse().unwrap_or(1), ttl.parse().unwrap_or(2))).await {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(etcd: &str, name: &str, count: usize, ttl: u64) -> Result<ExitCode, Error> {
    let mut terminated = signal(SignalKind::terminate()).expect("a handler");
    let etcd = Etcd::new(EtcdConfig::from_url(etcd)?)?;
    let config = RegistrarConfig { ttl: Duration::from_secs(ttl), ..RegistrarConfig::default() };
    let registrar = Registrar::with_config(&etcd, config).expect("a valid configuration");
    let register = |id: String| -> Result<Registration, Error> {
        Ok(registrar.register(Instance::new("greeter", &id, "10.0.0.1:50051")?))
    };
    let kept =
        (0..count).map(|number| register(format!("{name}-{number}"))).collect::<Result<Vec<_>, _>>()?;
    // Owned by nobody: a thread that ends with its stdin, and the process with it.
    let (lines, mut asked) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
        std::process::exit(3);
    });
    tokio::select! {
        () = all(&kept) => say("registered"),
        () = taken_over(&kept) => return Ok(TAKEN_OVER.into()),
        _ = terminated.recv() => return goodbye(kept).await,
    }
    loop {
        let line = tokio::select! {
            line = asked.recv() => line.unwrap_or_default(),
            () = taken_over(&kept) => return Ok(TAKEN_OVER.into()),
            _ = terminated.recv() => return goodbye(kept).await,
        };
        let (word, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: usize = number.parse().unwrap_or(0);
        match word {
            "cycle" => {
                let mut left = number;
                while left > 0 {
                    let batch = left.min(AT_ONCE);
                    left -= batch;
                    let ids = (0..batch).map(|at| format!("{name}-cycle-{at}"));
                    let cycled = ids.map(&register).collect::<Result<Vec<_>, _>>()?;
                    all(&cycled).await;
                    for registration in cycled {
                        registration.deregister(Duration::from_secs(30)).await?;
                    }
                }
                say("cycled");
            }
            "fail" => {
                for _ in 0..number {
                    // Nobody listens there.
                    let nowhere = Etcd::new(EtcdConfig::new(["http://127.0.0.1:1"])?)?;
                    let lost = Registrar::with_config(&nowhere, config).expect("a valid configuration");
                    let registration = lost.register(Instance::new("greeter", "lost", "10.0.0.1:50051")?);
                    assert!(
                        nowhere.ready(Duration::from_millis(20)).await.is_err(),
                        "somebody listens on port 1"
                    );
                    // Nothing was sent: there is nothing to say goodbye to.
                    registration.deregister(Duration::from_secs(30)).await?;
                }
                say("failed");
            }
            _ => say(&stats()),
        }
    }
}

async fn goodbye(kept: Vec<Registration>) -> Result<ExitCode, Error> {
    let goodbyes = kept.into_iter().map(|registration| registration.deregister(Duration::from_secs(10)));
    for goodbye in futures_util::future::join_all(goodbyes).await {
        goodbye?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(registrations: &[Registration]) {
    for registration in registrations {
        // The sender lives as long as the registration.
        let _ = registration.status().wait_for(RegistrationStatus::is_registered).await;
    }
}

/// Waits until another process has taken over one of the ids, which is for good.
async fn taken_over(registrations: &[Registration]) {
    let superseded = |status: &RegistrationStatus| matches!(status, RegistrationStatus::Superseded { .. });
    let each = registrations.iter().map(|registration| {
        let mut status = registration.status();
        // The sender lives as long as the registration.
        Box::pin(async move { drop(status.wait_for(superseded).await) })
    });
    futures_util::future::select_all(each).await;
}

/// `tasks KIB FILES`: living tasks, resident memory, open files and sockets.
fn stats() -> String {
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    let kib = resident.split_whitespace().next().unwrap_or("0");
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    format!("{tasks} {kib} {files}")
}

#[expect(clippy::print_stdout, reason = "the parent reads the answer there")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "whoever runs the test reads it there")]
fn complain(error: &Error) {
    eprintln!("instances: {error}");
}
