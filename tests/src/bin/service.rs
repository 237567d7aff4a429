//! A greeter that registers itself through `Serve`, in a process of its own, to be killed, stopped and asked to end.
//! `service ETCD ID TTL_S [unready]` prints its address once it listens; it ends as services do, or when its stdin ends.
//! One that is unready is never ready to register.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use demo_services::greeter::Greeter;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_registry::serve::Stages;
use svc_registry::{Error, Etcd, EtcdConfig, InstanceId, RegistrarConfig, Serve};

/// As short as tests need them and as long as a loaded machine needs them.
const STAGES: Stages = Stages {
    notice: Duration::from_millis(500),
    grace: Duration::from_secs(5),
    rest: Duration::from_secs(1),
    goodbye: Duration::from_secs(1),
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (etcd, id, ttl, ready) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [etcd, id, ttl] => (etcd, id, ttl, true),
        [etcd, id, ttl, "unready"] => (etcd, id, ttl, false),
        _ => return ExitCode::from(2),
    };
    // Ends with whoever started us, in whatever way that one ended.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
    match serve(etcd, id, ttl.parse().unwrap_or(2), ready).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn serve(etcd: &str, id: &str, ttl: u64, ready: bool) -> Result<(), Error> {
    let etcd = Etcd::new(EtcdConfig::new([etcd])?)?;
    let own = InstanceId::new(id).unwrap_or_else(|error| panic!("{error}"));
    let ttl = Duration::from_secs(ttl);
    let greeter = Greeter::new(Duration::ZERO, 0);
    greeter.sign_as(id);
    let serve = Serve::new(&etcd, "greeter")
        .listen("127.0.0.1:0")
        .registrar(RegistrarConfig { ttl, ..RegistrarConfig::default() })
        .stages(STAGES)
        .instance(move |instance| instance.with_id(own))
        .started(|instance| announce(instance.address().as_str()))
        .add_service(GreeterServer::new(greeter));
    if ready { serve.run().await } else { serve.ready(std::future::pending()).run().await }
}

#[expect(clippy::print_stdout, reason = "the parent reads the address there")]
fn announce(address: &str) {
    println!("{address}");
}

#[expect(clippy::print_stderr, reason = "whoever runs the test reads it there")]
fn complain(error: &Error) {
    eprintln!("service: {error}");
}
