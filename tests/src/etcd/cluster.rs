//! Three real etcds that are one cluster, on loopback, with a proxy before each for clients and one for its peers: so that
//! a member can be killed, frozen, cut off from its peers, or from its clients.

use std::sync::Arc;
use std::time::Duration;

use embedded_etcd::proxy::Proxy;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::sync::SemaphorePermit;

use super::peers::{Links, PeerProxy};
use super::real::{Member, Real};
use super::scrape::counted;
use super::{Kind, Options, TURNS, find};
use crate::ports::free_port;

/// How long the cluster may take for what it has to do by itself, such as an election, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of three. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Real>,
    /// Between clients and members, in the same order.
    doors: Vec<Proxy>,
    links: Arc<Links>,
    _peers: Vec<PeerProxy>,
    _turns: SemaphorePermit<'static>,
}

impl Cluster {
    /// Members of a cluster.
    pub const SIZE: usize = 3;

    /// Starts one and waits until every member answers. `None` where the machine has no such etcd.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(kind: Kind) -> Option<Cluster> {
        let binary = find(kind)?;
        let turns = TURNS.acquire_many(Self::SIZE as u32).await.expect("the semaphore is never closed");
        let links = Arc::new(Links::default());
        let (mut peers, mut ports) = (Vec::new(), Vec::new());
        for number in 0..Self::SIZE {
            let port = free_port();
            peers.push(PeerProxy::start(number, port, links.clone()).await);
            ports.push(port);
        }
        let names: Vec<String> =
            peers.iter().enumerate().map(|(n, peer)| format!("m{n}=http://{}", peer.address())).collect();
        let options = Options::default();
        let started = ports.iter().enumerate().map(|(number, port)| {
            let member = Member {
                name: format!("m{number}"),
                peer_port: *port,
                advertised_peer: format!("http://{}", peers[number].address()),
                initial_cluster: names.join(","),
            };
            Real::start_member(binary, &options, member)
        });
        let members = join_all(started).await;
        let mut doors = Vec::new();
        for member in &members {
            doors.push(Proxy::start(format!("127.0.0.1:{}", member.port())).await.expect("a free port"));
        }
        let cluster = Cluster { members, doors, links, _peers: peers, _turns: turns };
        let mut client = cluster.client_of(0).await;
        for member in client.member_list().await.expect("it answers").members() {
            let number = member.name()[1..].parse().expect("our own name");
            cluster.links.knows(member.id(), number);
        }
        Some(cluster)
    }

    /// Where clients find the members, behind the proxies.
    pub fn endpoints(&self) -> Vec<String> {
        self.doors.iter().map(|door| door.address().to_string()).collect()
    }

    /// The proxy between clients and a member.
    pub fn door(&self, member: usize) -> &Proxy {
        &self.doors[member]
    }

    /// A client of etcd-client's own making, of one member and not through its proxy.
    pub async fn client_of(&self, member: usize) -> etcd_client::Client {
        let url = format!("http://127.0.0.1:{}", self.members[member].port());
        etcd_client::Client::connect([url], None).await.expect("an address")
    }

    /// Who leads, as a member that is up and has a quorum says; waits until one does.
    ///
    /// # Panics
    /// If there is none within a minute.
    pub async fn leader(&self) -> usize {
        let look = async {
            loop {
                for member in 0..Self::SIZE {
                    let Ok(mut client) = self.try_client(member).await else { continue };
                    let asked = tokio::time::timeout(Duration::from_secs(2), async {
                        client.get("is there a quorum", None).await?;
                        client.status().await
                    });
                    if let Ok(Ok(status)) = asked.await
                        && let Some(leader) = self.links.number(status.leader())
                    {
                        return leader;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, look).await.expect("the cluster has a leader")
    }

    async fn try_client(&self, member: usize) -> Result<etcd_client::Client, etcd_client::Error> {
        let url = format!("http://127.0.0.1:{}", self.members[member].port());
        etcd_client::Client::connect([url], None).await
    }

    /// Makes another member the leader; waits until it is.
    pub async fn move_leader(&self, to: usize) {
        assert!(self.try_move_leader(to).await, "the leader moves");
        while self.leader().await != to {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks for another leader; whether etcd agreed. It does not where that member lags behind.
    pub async fn try_move_leader(&self, to: usize) -> bool {
        let id = self.links.id(to).expect("the cluster was asked");
        let from = self.leader().await;
        self.client_of(from).await.move_leader(id).await.is_ok()
    }

    /// The sum, over all members, of the metrics whose lines begin so; of one that is down none.
    pub async fn counted(&self, line: &str) -> f64 {
        let mut sum = 0.0;
        for member in 0..Self::SIZE {
            let address = self.address(member);
            let counted = tokio::time::timeout(Duration::from_secs(5), counted(&address, line));
            sum += counted.await.ok().and_then(Result::ok).unwrap_or_default();
        }
        sum
    }

    /// SIGKILL. Its data stay.
    pub fn kill(&self, member: usize) {
        self.members[member].kill();
    }

    /// Starts it again after [`kill`](Self::kill), without waiting: without a quorum it has no answers.
    pub fn start_again(&self, member: usize) {
        self.members[member].spawn().expect("it started before");
    }

    /// Kills all members and throws their data away. They start again as an empty cluster with the same ids.
    pub fn wipe(&self) {
        // All of them first: one that is left would tell the others of what they had.
        self.members.iter().for_each(Real::kill);
        self.members.iter().for_each(|member| member.wipe(false));
    }

    /// Starts a member that has ended by itself, as for want of its port; whether it had.
    pub fn revive(&self, member: usize) -> bool {
        let ended = self.members[member].exited().is_some();
        if ended {
            self.start_again(member);
        }
        ended
    }

    /// Where a member listens, as `host:port`, not through its proxy.
    pub fn address(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].port())
    }

    /// The version of all members, such as `3.5.16`.
    pub fn version(&self) -> &'static str {
        self.members[0].version_text()
    }

    /// SIGSTOP.
    pub fn freeze(&self, member: usize) {
        self.members[member].signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self, member: usize) {
        self.members[member].signal(Signal::SIGCONT);
    }

    /// Cuts a member off from its peers, in both directions; its clients still reach it.
    pub fn isolate(&self, member: usize) {
        self.links.isolate(Some(member));
    }

    /// Ends [`isolate`](Self::isolate).
    pub fn heal(&self) {
        self.links.isolate(None);
    }
}
