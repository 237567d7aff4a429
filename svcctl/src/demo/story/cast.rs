//! The actors: instances of services and loads on them, and what can be seen of them.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;

use svc_registry::{Incarnation, LeaseId, State};
use tokio::time::{Instant, timeout};

use crate::demo::child::{Child, Signal};
use crate::demo::ledger::Totals;
use crate::demo::load::{Load, Plan, Report};
use crate::demo::narrator::Narrator;
use crate::demo::stage::Stage;
use crate::exit::{Exit, Failure};
use crate::inventory::Inventory;

/// Outlives an outage of [`FROZEN`](super::FROZEN) seconds between two keepalives.
const TTL: &str = "10s";

/// The longest wait for anything that must follow.
const LIMIT: Duration = Duration::from_secs(40);

/// Who plays. Dropping it ends them all.
#[derive(Debug, Default)]
pub(in crate::demo) struct Cast {
    members: BTreeMap<&'static str, Child>,
    loads: Vec<Load>,
}

impl Cast {
    /// Starts an instance of a service under this id, which no other service has, with flags of its own.
    pub(super) fn start(
        &mut self,
        stage: &Stage,
        service: &str,
        id: &'static str,
        flags: &[&str],
    ) -> Result<(), Failure> {
        let fixed = ["--id", id, "--listen", "127.0.0.1:0", "--ttl", TTL];
        let arguments = fixed.iter().chain(flags).map(|&flag| flag.to_owned());
        let arguments = stage.etcd_flags().into_iter().chain(arguments);
        let child = Child::start(id, &stage.binary(service), stage.log(id), arguments)?;
        self.members.insert(id, child);
        Ok(())
    }

    /// Starts a load.
    pub(super) fn load(&mut self, stage: &Stage, plan: Plan, flags: Vec<String>) -> Result<(), Failure> {
        self.loads.push(Load::start(stage, plan, flags)?);
        Ok(())
    }

    /// How many calls are in flight at most.
    pub(super) fn callers(&self) -> u64 {
        self.loads.iter().map(|load| load.plan.callers).sum()
    }

    /// The number of an instance's process.
    pub(super) fn pid(&mut self, id: &str) -> Result<u32, Failure> {
        self.member(id)?.pid().ok_or_else(|| unknown(id))
    }

    /// Sends a signal to an instance.
    pub(super) fn signal(&mut self, id: &str, signal: Signal) -> Result<(), Failure> {
        self.member(id)?.signal(signal)
    }

    /// Waits until an instance has ended, and lets it go.
    pub(super) async fn ended(&mut self, id: &str, within: Duration) -> Result<ExitStatus, Failure> {
        let status = self.member(id)?.ended(within).await?;
        self.members.remove(id);
        Ok(status)
    }

    /// The same while the calls are shown.
    pub(super) async fn ended_in_view(
        &mut self,
        narrator: &mut Narrator<'_>,
        id: &str,
        within: Duration,
    ) -> Result<ExitStatus, Failure> {
        let mut child = self.members.remove(id).ok_or_else(|| unknown(id))?;
        let shown = self.show_until(narrator, |_, _| false, None);
        tokio::select! {
            status = child.ended(within) => status,
            shown = shown => Err(shown.err().unwrap_or_else(|| unknown(id))),
        }
    }

    fn member(&mut self, id: &str) -> Result<&mut Child, Failure> {
        self.members.get_mut(id).ok_or_else(|| unknown(id))
    }

    /// What lies in etcd about all of them.
    pub(super) async fn inventory(&self, stage: &Stage) -> Result<Inventory, Failure> {
        Inventory::read(stage.etcd(), None).await
    }

    /// Whether a record of this id lies in etcd.
    pub(super) async fn is_registered(&self, stage: &Stage, id: &str) -> Result<bool, Failure> {
        Ok(self.inventory(stage).await?.entries.keys().any(|key| key.1.as_str() == id))
    }

    /// Which process stands behind an instance, by etcd.
    pub(super) async fn incarnation(&self, stage: &Stage, id: &str) -> Result<Option<Incarnation>, Failure> {
        let inventory = self.inventory(stage).await?;
        let entry = inventory.entries.iter().find(|(key, _)| key.1.as_str() == id);
        Ok(entry.and_then(|(_, entry)| entry.record.incarnation))
    }

    /// Waits until another process than that stands behind it.
    pub(super) async fn until_renewed(
        &mut self,
        stage: &Stage,
        narrator: &mut Narrator<'_>,
        id: &str,
        old: Option<Incarnation>,
    ) -> Result<(), Failure> {
        let limit = Instant::now() + LIMIT;
        while self.incarnation(stage, id).await? == old {
            if Instant::now() > limit {
                return Err(late(&format!("{id} is registered as a new process")));
            }
            self.look(narrator, Duration::from_millis(200)).await?;
        }
        Ok(())
    }

    /// Waits until so many more calls were good.
    pub(super) async fn until_good(&mut self, narrator: &mut Narrator<'_>, more: u64) -> Result<(), Failure> {
        let enough = |now: &Report, since: &Report| now.good() >= since.good() + more;
        let what = format!("{more} more calls are good");
        timeout(LIMIT, self.show_until(narrator, enough, None)).await.map_err(|_| late(&what))?
    }

    /// Which lease keeps which instance.
    pub(super) async fn leases(&self, stage: &Stage) -> Result<Vec<LeaseId>, Failure> {
        Ok(self.inventory(stage).await?.entries.values().map(|entry| entry.lease).collect())
    }

    /// Waits until each of these serves, under the process that runs now: its record is not older than that.
    pub(super) async fn until_serving(
        &mut self,
        stage: &Stage,
        narrator: &mut Narrator<'_>,
        ids: &[&str],
    ) -> Result<Inventory, Failure> {
        let limit = Instant::now() + LIMIT;
        loop {
            self.members.values_mut().try_for_each(Child::lives)?;
            let inventory = self.inventory(stage).await?;
            let serves = |id: &&str| {
                inventory.entries.iter().any(|(key, entry)| {
                    key.1.as_str() == *id
                        && entry.record.state == State::Serving
                        && entry.lease != LeaseId::NONE
                })
            };
            if ids.iter().all(serves) {
                return Ok(inventory);
            }
            if Instant::now() > limit {
                narrator.instances(&inventory)?;
                return Err(late(&format!("{} serve", ids.join(", "))));
            }
            self.look(narrator, Duration::from_millis(200)).await?;
        }
    }

    /// Waits until each of these has answered since now.
    pub(super) async fn until_called(
        &mut self,
        narrator: &mut Narrator<'_>,
        ids: &[&str],
    ) -> Result<(), Failure> {
        let called =
            |now: &Report, since: &Report| ids.iter().all(|id| replies(now, id) > replies(since, id));
        let what = format!("{} get calls", ids.join(", "));
        timeout(LIMIT, self.show_until(narrator, called, None)).await.map_err(|_| late(&what))?
    }

    /// Waits until this one has answered nothing for a second, while others have.
    pub(super) async fn until_not_called(
        &mut self,
        narrator: &mut Narrator<'_>,
        id: &str,
    ) -> Result<(), Failure> {
        let limit = Instant::now() + LIMIT;
        loop {
            let since = self.report();
            self.look(narrator, Duration::from_secs(1)).await?;
            let now = self.report();
            if replies(&now, id) == replies(&since, id) && now.calls > since.calls {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(late(&format!("{id} gets no calls any more")));
            }
        }
    }

    /// Shows the calls for a while.
    pub(super) async fn look(&mut self, narrator: &mut Narrator<'_>, time: Duration) -> Result<(), Failure> {
        self.show_until(narrator, |_, _| false, Some(Instant::now() + time)).await
    }

    /// Waits until each load has told of a moment after now.
    pub(super) async fn settle(&mut self, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
        let since = self.report();
        for load in &mut self.loads {
            // The first may have been on its way already.
            for _ in 0..2 {
                timeout(LIMIT, load.next()).await.map_err(|_| late("a load tells how it goes"))??;
            }
        }
        narrator.progress(&self.report(), &since);
        Ok(())
    }

    /// Shows each report until one will do, or until a time.
    async fn show_until(
        &mut self,
        narrator: &mut Narrator<'_>,
        enough: impl Fn(&Report, &Report) -> bool,
        end: Option<Instant>,
    ) -> Result<(), Failure> {
        let since = self.report();
        loop {
            self.members.values_mut().try_for_each(Child::lives)?;
            let next = async {
                match self.loads.first_mut() {
                    Some(load) => load.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = at(end) => return Ok(()),
                next = next => next?,
            }
            let now = self.report();
            narrator.progress(&now, &since);
            if enough(&now, &since) {
                return Ok(());
            }
        }
    }

    /// The latest reports of all loads, added up.
    fn report(&self) -> Report {
        let mut sum = Report::default();
        for report in self.loads.iter().map(Load::report) {
            sum.calls += report.calls;
            sum.failed += report.failed;
            for (code, n) in report.by_code {
                *sum.by_code.entry(code).or_default() += n;
            }
            for (instance, n) in report.by_instance {
                *sum.by_instance.entry(instance).or_default() += n;
            }
            sum.last_error = sum.last_error.or(report.last_error);
        }
        sum
    }

    /// The calls of all loads.
    pub(super) fn totals(&self) -> Totals {
        self.report().totals()
    }

    /// Why the call that failed last did.
    pub(super) fn last_error(&self) -> Option<String> {
        self.report().last_error
    }

    /// Asks every instance to stop, and waits until all have, in order.
    pub(super) async fn stop_all(&mut self, within: Duration) -> Result<(), Failure> {
        self.members.values_mut().try_for_each(|member| member.signal(Signal::Terminate))?;
        while let Some((id, mut member)) = self.members.pop_first() {
            let status = member.ended(within).await?;
            if !status.success() {
                let reason = format!("{id} was asked to stop and ended with {status}");
                return Err(Failure::new(Exit::Other, reason));
            }
        }
        Ok(())
    }

    /// The same, of those that still run, however they end: their user may have done anything to them.
    pub(super) async fn stop_kept(&mut self, within: Duration) {
        for member in self.members.values_mut() {
            // One that has ended already is no trouble.
            let _ = member.signal(Signal::Terminate);
        }
        while let Some((_, mut member)) = self.members.pop_first() {
            // What does not end in time is killed as it is dropped.
            let _ = member.ended(within).await;
        }
    }

    /// Ends the loads; gives what they measured.
    pub(super) async fn finish_loads(&mut self) -> Result<Vec<(Plan, Report)>, Failure> {
        let mut reports = Vec::new();
        for load in self.loads.drain(..) {
            reports.push((load.plan, load.finish().await?));
        }
        Ok(reports)
    }
}

fn replies(report: &Report, id: &str) -> u64 {
    report.by_instance.get(id).copied().unwrap_or(0)
}

fn late(what: &str) -> Failure {
    Failure::new(Exit::Other, format!("waited {LIMIT:?} in vain until {what}"))
}

fn unknown(id: &str) -> Failure {
    Failure::new(Exit::Other, format!("{id} does not run"))
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
