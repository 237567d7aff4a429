//! The containers of one compose project, by the names of their services, and what is done to them: with `docker` alone,
//! whatever compose started them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::Error;

/// Longer than any command of Docker's takes on a busy machine: a stop may take 30 s by itself.
const COMMAND: Duration = Duration::from_secs(60);

/// The longest wait until the cluster is whole again.
const WHOLE: Duration = Duration::from_secs(90);

/// The services that register.
const REGISTERED: [&str; 4] = ["greeter", "balance", "gift", "edge"];

/// A cluster that runs.
#[derive(Debug)]
pub(crate) struct Cluster {
    project: String,
    containers: BTreeMap<String, String>,
}

/// Which process stands behind each instance: `greeter-1` to its incarnation.
pub(crate) type Incarnations = BTreeMap<String, String>;

/// What the ledger holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coins {
    pub(crate) all: i128,
    pub(crate) frozen: i128,
}

/// Runs a command to its end; its stdout.
pub(crate) async fn docker<S: AsRef<str>>(arguments: &[S]) -> Result<String, Error> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let line = format!("docker {}", arguments.join(" "));
    let run = Command::new("docker").args(&arguments).kill_on_drop(true).output();
    let output = timeout(COMMAND, run).await.map_err(|_| format!("{line}: no end after {COMMAND:?}"))??;
    if !output.status.success() {
        return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Cluster {
    pub(crate) async fn find(project: &str) -> Result<Cluster, Error> {
        let filter = format!("label=com.docker.compose.project={project}");
        let format = "{{.Label \"com.docker.compose.service\"}} {{.ID}}";
        let list = docker(&["ps", "--filter", &filter, "--format", format]).await?;
        let containers: BTreeMap<String, String> = list
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(service, id)| (service.to_owned(), id.to_owned()))
            .collect();
        if containers.is_empty() {
            return Err(format!("no cluster {project} runs here; `make cluster-test` starts one").into());
        }
        Ok(Cluster { project: project.to_owned(), containers })
    }

    /// The container of a service such as `greeter-1`.
    pub(crate) fn container(&self, service: &str) -> Result<&str, Error> {
        let id = self.containers.get(service);
        Ok(id.ok_or_else(|| format!("there is no {service} in {}", self.project))?)
    }

    pub(crate) fn has(&self, service: &str) -> bool {
        self.containers.contains_key(service)
    }

    /// The members of a service, in order: `greeter-1`, `greeter-2`, ...
    pub(crate) fn members(&self, service: &str) -> Vec<&str> {
        let of = |name: &&str| name.strip_prefix(service).is_some_and(|rest| rest.starts_with('-'));
        self.containers.keys().map(String::as_str).filter(of).collect()
    }

    /// Something that docker does to containers: kill, pause, stop, restart ...
    pub(crate) async fn act(&self, command: &[&str], services: &[&str]) -> Result<(), Error> {
        let ids = services.iter().map(|service| self.container(service)).collect::<Result<Vec<_>, _>>()?;
        docker(&[command, &ids].concat()).await.map(drop)
    }

    /// Takes a container off a network of the cluster, or puts it back under its names there.
    pub(crate) async fn connect(&self, on: bool, network: &str, service: &str) -> Result<(), Error> {
        let (network, id) = (format!("{}_{network}", self.project), self.container(service)?);
        let alias = format!("{service}.mesh");
        if on {
            docker(&["network", "connect", "--alias", service, "--alias", &alias, &network, id]).await?;
        } else {
            docker(&["network", "disconnect", &network, id]).await?;
        }
        Ok(())
    }

    /// Runs a command in a container; its stdout.
    pub(crate) async fn exec(&self, service: &str, command: &[&str]) -> Result<String, Error> {
        docker(&[&["exec", self.container(service)?], command].concat()).await
    }

    /// The member of etcd that leads.
    pub(crate) async fn leader(&self) -> Result<String, Error> {
        for member in self.members("etcd") {
            let status = self.exec(member, &["etcdctl", "endpoint", "status", "-w", "json"]).await?;
            let status: Value = serde_json::from_str(&status)?;
            let status = &status[0]["Status"];
            if status["leader"].is_u64() && status["leader"] == status["header"]["member_id"] {
                return Ok(member.to_owned());
            }
        }
        Err("no member of etcd leads".into())
    }

    /// The instances that serve, by etcd.
    pub(crate) async fn serving(&self) -> Result<Incarnations, Error> {
        let list = self.exec("tools", &["svcctl", "get", "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&list)?;
        let instances = list["instances"].as_array().cloned().unwrap_or_default();
        let text = |instance: &Value, field: &str| instance[field].as_str().unwrap_or_default().to_owned();
        let serving = instances.iter().filter(|instance| instance["state"] == "serving");
        Ok(serving.map(|instance| (text(instance, "id"), text(instance, "incarnation"))).collect())
    }

    /// Waits until every instance serves, those of `renewed` as another process than `before`, and every member of etcd
    /// is healthy; how long that took.
    pub(crate) async fn until_whole(
        &self,
        before: &Incarnations,
        renewed: &[String],
    ) -> Result<Duration, Error> {
        let since = Instant::now();
        loop {
            let missing = match self.missing(before, renewed).await {
                Ok(None) => return Ok(since.elapsed()),
                Ok(Some(missing)) => missing,
                Err(error) => error.to_string(),
            };
            if since.elapsed() > WHOLE {
                return Err(format!("not whole after {WHOLE:?}: {missing}").into());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn missing(&self, before: &Incarnations, renewed: &[String]) -> Result<Option<String>, Error> {
        let serving = self.serving().await?;
        for id in REGISTERED.iter().flat_map(|service| self.members(service)) {
            match serving.get(id) {
                None => return Ok(Some(format!("{id} does not serve"))),
                Some(now) if renewed.iter().any(|renewed| renewed == id) && before.get(id) == Some(now) => {
                    return Ok(Some(format!("{id} is still its old process")));
                }
                Some(_) => {}
            }
        }
        for member in self.members("etcd") {
            if let Err(error) = self.exec(member, &["etcdctl", "endpoint", "health"]).await {
                return Ok(Some(error.to_string()));
            }
        }
        Ok(None)
    }

    /// What the ledger holds; an error if it does not add up.
    pub(crate) async fn coins(&self) -> Result<Coins, Error> {
        // Any balance will do; one of them is there.
        let checked = self.exec("balance-2", &["balance", "--check", "-o", "json"]).await?;
        let figures: Value = serde_json::from_str(checked.trim())?;
        let figure = |name: &str| figures[name].to_string().parse::<i128>();
        Ok(Coins { all: figure("coins")?, frozen: figure("frozen")? })
    }
}
