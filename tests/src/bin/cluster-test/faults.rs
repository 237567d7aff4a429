//! What is done to the cluster, and what that may cost.

use std::time::Duration;

use crate::Error;
use crate::docker::Cluster;

/// A fault.
#[derive(Debug)]
pub(crate) struct Fault {
    /// For the table.
    pub(crate) name: String,
    /// How it comes ...
    pub(crate) begin: Vec<Act>,
    /// ... how long it lasts ...
    pub(crate) lasts: Duration,
    /// ... and how it goes.
    pub(crate) end: Vec<Act>,
    /// Instances that are another process after it.
    pub(crate) renewed: Vec<String>,
    /// What may fail of the calls by gRPC, and why; everything else is owed.
    pub(crate) excused: Option<&'static str>,
}

/// Something that is done to containers.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A command of docker's.
    Docker(Vec<&'static str>, Vec<String>),
    /// Off a network.
    Cut(&'static str, String),
    /// Back on it.
    Join(&'static str, String),
    /// A wait until all is whole, these instances renewed: what a careful operator does between two steps.
    Whole(Vec<String>),
}

impl Act {
    pub(crate) async fn run(&self, cluster: &Cluster) -> Result<(), Error> {
        match self {
            Act::Docker(command, services) => {
                let services: Vec<&str> = services.iter().map(String::as_str).collect();
                cluster.act(command, &services).await
            }
            Act::Cut(network, service) => cluster.connect(false, network, service).await,
            Act::Join(network, service) => cluster.connect(true, network, service).await,
            Act::Whole(_) => Ok(()),
        }
    }
}

const IN_FLIGHT: &str = "calls in flight on it end at their deadline: whether they were processed nobody knows, \
                         and its connections look well until then";

/// A stopped service has the time that docker-compose.yml gives it.
const RESTART: [&str; 3] = ["restart", "-t", "30"];

/// An etcd that is told to stop waits ten seconds for its watchers, who do not go by themselves: it is killed sooner.
const STOP_ETCD: [&str; 3] = ["stop", "-t", "2"];
const RESTART_ETCD: [&str; 3] = ["restart", "-t", "2"];

fn docker(command: &[&'static str], services: &[&str]) -> Act {
    Act::Docker(command.to_vec(), owned(services))
}

fn owned(services: &[&str]) -> Vec<String> {
    services.iter().map(|&service| service.to_owned()).collect()
}

impl Fault {
    fn new(name: &str, begin: Vec<Act>, seconds: u64, end: Vec<Act>) -> Fault {
        let lasts = Duration::from_secs(seconds);
        Fault { name: name.to_owned(), begin, lasts, end, renewed: Vec::new(), excused: None }
    }

    fn renews(self, renewed: &[&str]) -> Fault {
        Fault { renewed: owned(renewed), ..self }
    }

    fn excuses(self, why: &'static str) -> Fault {
        Fault { excused: Some(why), ..self }
    }

    fn kill(name: &str, services: &[&str]) -> Fault {
        let (kill, start) = (docker(&["kill"], services), docker(&["start"], services));
        Fault::new(name, vec![kill], 3, vec![start]).renews(services)
    }

    /// These members of etcd are stopped for so long.
    fn stop(name: &str, members: &[&str], seconds: u64) -> Fault {
        let (stop, start) = (docker(&STOP_ETCD, members), docker(&["start"], members));
        Fault::new(name, vec![stop], seconds, vec![start])
    }
}

/// All of them, in the order in which they are played.
pub(crate) async fn all(cluster: &Cluster) -> Result<Vec<Fault>, Error> {
    let leader = cluster.leader().await?;
    let members = cluster.members("etcd");
    let mut followers = members.iter().filter(|&&member| member != leader);
    let follower = *followers.next().ok_or("etcd has one member only")?;
    let both: Vec<&str> = members.iter().take(2).copied().collect();
    let behind: Vec<&str> =
        ["balance-1", "gift-1", "edge-1"].into_iter().filter(|name| cluster.has(name)).collect();
    let cut = |network, service: &str| Act::Cut(network, service.to_owned());
    let join = |network, service: &str| Act::Join(network, service.to_owned());
    Ok(vec![
        Fault::kill("SIGKILL of a greeter", &["greeter-2"]),
        Fault::kill(&format!("SIGKILL of {}", behind.join(", ")), &behind),
        Fault::new(
            "a greeter paused",
            vec![docker(&["pause"], &["greeter-3"])],
            6,
            vec![docker(&["unpause"], &["greeter-3"])],
        )
        .excuses(IN_FLIGHT),
        Fault::new(
            "a greeter off all networks",
            vec![cut("mesh", "greeter-1"), cut("etcd", "greeter-1")],
            6,
            vec![join("etcd", "greeter-1"), join("mesh", "greeter-1")],
        )
        .excuses(IN_FLIGHT),
        Fault::stop("an etcd follower stopped", &[follower], 5),
        Fault::stop("the etcd leader stopped", &[&leader], 5),
        Fault::new(
            "an etcd member off the network",
            vec![cut("etcd", follower)],
            6,
            vec![join("etcd", follower)],
        ),
        // Longer than its lease: the record goes, and the process goes on.
        Fault::new("a greeter off etcd", vec![cut("etcd", "greeter-2")], 20, vec![join("etcd", "greeter-2")]),
        Fault::stop("two of three etcd members down", &both, 20),
        rolling(cluster),
    ])
}

/// One after the other, everything: services, then etcd, then PostgreSQL.
fn rolling(cluster: &Cluster) -> Fault {
    let mut begin = Vec::new();
    for n in 1..=3 {
        let round: Vec<String> = ["greeter", "balance", "gift", "edge"]
            .iter()
            .map(|service| format!("{service}-{n}"))
            .filter(|name| cluster.has(name))
            .collect();
        begin.push(Act::Docker(RESTART.to_vec(), round.clone()));
        begin.push(Act::Whole(round));
    }
    for member in cluster.members("etcd") {
        begin.push(docker(&RESTART_ETCD, &[member]));
        begin.push(Act::Whole(Vec::new()));
    }
    begin.push(docker(&RESTART, &["postgres"]));
    Fault::new("a rolling restart of everything", begin, 1, Vec::new())
}
