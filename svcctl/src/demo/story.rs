//! The chapters, in order. Each does one thing to the services or to etcd, waits for what must follow, and closes its
//! books: the calls that ended meanwhile, and how many of them were allowed to fail.
//!
//! The first half, here, is about three greeters; the second, in [`gifts`], about services that call one another and
//! must not lose a coin. [`keep`] is for who wants to try things on what then runs.

mod cast;
mod gifts;
mod keep;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::child::Signal;
use super::ledger::{Latency, Ledger, Totals};
use super::load::Plan;
use super::narrator::Narrator;
use super::stage::Stage;
use crate::cli::{Drain, Target, Undrain};
use crate::commands;
use crate::context::{Cancelled, Context};
use crate::exit::{Exit, Failure};

pub(super) use cast::Cast;
pub(super) use keep::stay;

/// The name under which the greeters register.
const SERVICE: &str = "greeter";
/// Their ids, which stay the same over restarts.
const IDS: [&str; 3] = ["greeter-1", "greeter-2", "greeter-3"];
/// Makes calls last long enough to be in flight when something happens.
const SLOWLY: [&str; 2] = ["--delay", "20ms"];

/// Short calls: what most services do.
const UNARY: Plan = Plan {
    name: "unary",
    binary: "greeter-load",
    callers: 16,
    flags: &["--rpc", "unary", "--rate", "200", "--deadline", "2s"],
};
/// Streams of three seconds: what a drain must wait for.
const STREAMS: Plan = Plan {
    name: "streams",
    binary: "greeter-load",
    callers: 12,
    flags: &[
        "--rpc",
        "stream",
        "--rate",
        "4",
        "--deadline",
        "10s",
        "--stream-replies",
        "30",
        "--stream-interval",
        "100ms",
    ],
};

/// How long etcd is out of reach: longer than the clients' own timeouts, shorter than a lease.
const FROZEN: Duration = Duration::from_secs(5);
/// How long it is away before it comes back.
const AWAY: Duration = Duration::from_secs(4);
/// How long a chapter is watched when there is nothing to wait for.
const LOOK: Duration = Duration::from_secs(3);
/// How long an orderly stop may take: Kubernetes' own patience.
const STOP: Duration = Duration::from_secs(30);

/// Tells all of it. With `keep` the actors of the second half play on.
pub(super) async fn tell(
    stage: &mut Stage,
    narrator: &mut Narrator<'_>,
    ledger: &mut Ledger,
    cast: &mut Cast,
    keep: bool,
) -> Result<(), Failure> {
    let mut tale = Tale { stage, narrator, ledger, cast, before: Totals::default() };
    tale.register().await?;
    tale.balance().await?;
    tale.kill().await?;
    tale.drain().await?;
    tale.stop().await?;
    tale.freeze().await?;
    tale.wipe().await?;
    tale.end().await?;
    tale.gifts(keep).await?;
    Ok(())
}

struct Tale<'a, 'p> {
    stage: &'a mut Stage,
    narrator: &'a mut Narrator<'p>,
    ledger: &'a mut Ledger,
    cast: &'a mut Cast,
    /// The calls of loads that have ended.
    before: Totals,
}

impl Tale<'_, '_> {
    async fn register(&mut self) -> Result<(), Failure> {
        self.narrator.chapter("Three greeters register")?;
        self.narrator
            .say("Each is a process with a port of its own, a record in etcd and a lease that keeps it.")?;
        for id in IDS {
            self.greeter(id)?;
        }
        let inventory = self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        self.narrator.say("$ svcctl get greeter")?;
        self.narrator.instances(&inventory)
    }

    async fn balance(&mut self) -> Result<(), Failure> {
        self.narrator.chapter("A client calls them")?;
        self.narrator.say(
            "16 callers make 200 short calls a second; 12 more hold streams of three seconds. They know a name, no addresses.",
        )?;
        let target = || ["--target".to_owned(), SERVICE.to_owned()];
        for plan in [UNARY, STREAMS] {
            let flags = self.stage.etcd_flags().into_iter().chain(target()).collect();
            self.cast.load(self.stage, plan, flags)?;
        }
        self.cast.until_called(self.narrator, &IDS).await?;
        self.cast.look(self.narrator, LOOK).await?;
        self.close("three instances serve", 0).await
    }

    async fn kill(&mut self) -> Result<(), Failure> {
        let [_, victim, _] = IDS;
        self.narrator.chapter(&format!("{victim} is killed with SIGKILL, and started again"))?;
        let callers = self.cast.callers();
        self.narrator.say(&format!(
            "Allowed to fail: the calls in flight on {victim} at that moment, at most one for each of the {callers} \
             callers."
        ))?;
        self.narrator.say(
            "Whether they were processed nobody can know, so they are not sent again. No other call may fail.",
        )?;
        self.cast.signal(victim, Signal::Kill)?;
        self.cast.ended(victim, STOP).await?;
        self.cast.until_not_called(self.narrator, victim).await?;
        self.narrator.say(&format!(
            "{victim} gets no calls, although its record stands until its lease runs out: its connections are gone."
        ))?;
        self.greeter(victim)?;
        self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        self.cast.until_called(self.narrator, &[victim]).await?;
        self.narrator.say(&format!("{victim} is back: its new process took over the old record."))?;
        self.close(&format!("{victim} is killed"), callers).await
    }

    async fn drain(&mut self) -> Result<(), Failure> {
        let [.., drained] = IDS;
        self.narrator.chapter(&format!("{drained} is drained for maintenance, and put back"))?;
        self.drain_one(SERVICE, drained, "maintenance").await?;
        self.cast.until_not_called(self.narrator, drained).await?;
        let inventory = self.cast.inventory(self.stage).await?;
        self.narrator.instances(&inventory)?;

        self.undrain_one(SERVICE, drained).await?;
        self.cast.until_called(self.narrator, &[drained]).await?;
        self.close(&format!("{drained} is drained"), 0).await
    }

    async fn stop(&mut self) -> Result<(), Failure> {
        let [stopped, ..] = IDS;
        self.narrator.chapter(&format!("{stopped} is asked to stop, and started again"))?;
        self.narrator.say("SIGTERM: it leaves the registry, finishes its calls and streams, and exits 0.")?;
        self.cast.signal(stopped, Signal::Terminate)?;
        let status = self.cast.ended_in_view(self.narrator, stopped, STOP).await?;
        if !status.success() {
            return Err(Failure::new(
                Exit::Other,
                format!("{stopped} was asked to stop and ended with {status}"),
            ));
        }
        if self.cast.is_registered(self.stage, stopped).await? {
            return Err(Failure::new(Exit::Other, format!("{stopped} has ended and left its record")));
        }
        self.narrator.say(&format!("{stopped} has ended, and its record with it."))?;
        self.greeter(stopped)?;
        self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        self.cast.until_called(self.narrator, &[stopped]).await?;
        self.close(&format!("{stopped} is stopped"), 0).await
    }

    async fn freeze(&mut self) -> Result<(), Failure> {
        self.narrator.chapter(&format!("etcd does not answer for {} s", FROZEN.as_secs()))?;
        self.narrator
            .say("Unreachable is not empty: the client keeps what it knew, and no call may fail.")?;
        let before = self.cast.leases(self.stage).await?;
        self.stage.freeze();
        self.cast.look(self.narrator, FROZEN).await?;
        self.stage.thaw();
        self.cast.look(self.narrator, LOOK).await?;
        self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        if self.cast.leases(self.stage).await? == before {
            self.narrator
                .say("It answers again. The greeters kept their leases: nobody had to register anew.")?;
        } else {
            self.narrator
                .say("It answers again. Leases had run out meanwhile; the greeters registered anew.")?;
        }
        self.close("etcd is frozen", 0).await
    }

    async fn wipe(&mut self) -> Result<(), Failure> {
        self.narrator.chapter("etcd goes away, and comes back empty")?;
        self.narrator
            .say("The worst day: every key is lost. The services still run, so again no call may fail.")?;
        self.stage.take_away().await?;
        self.cast.look(self.narrator, AWAY).await?;
        self.stage.bring_back().await?;
        let back = Instant::now();
        let inventory = self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        let took = back.elapsed();
        self.narrator.say(&format!(
            "All three are registered again, {:.1} s after it came back:",
            took.as_secs_f64()
        ))?;
        self.narrator.instances(&inventory)?;
        self.cast.look(self.narrator, LOOK).await?;
        self.close("etcd is wiped", 0).await
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.narrator.chapter("The greeters go home")?;
        self.finish_loads("the last greetings end").await?;
        self.cast.stop_all(STOP).await?;
        self.narrator.say("The load has ended, the greeters have stopped, etcd is as it was.")
    }

    fn greeter(&mut self, id: &'static str) -> Result<(), Failure> {
        self.cast.start(self.stage, SERVICE, id, &SLOWLY)
    }

    /// `svcctl drain --wait`, as it is typed.
    async fn drain_one(&mut self, service: &str, id: &str, reason: &str) -> Result<(), Failure> {
        let target = Target { service: service.into(), id: id.into() };
        let (wait, timeout, reason) = (true, Some(STOP), reason.to_owned());
        let line = format!("svcctl drain {service} {id} --reason {reason} --wait");
        let args = Drain { target, wait, timeout, reason, force: false, ttl: None };
        let etcd = self.stage.etcd().clone();
        let printer = self.narrator.command(&line)?;
        let mut context = Context { etcd, printer, cancelled: Cancelled::never() };
        commands::drain::run(&mut context, &args).await?;
        self.narrator.answered();
        Ok(())
    }

    /// `svcctl undrain`, as it is typed.
    async fn undrain_one(&mut self, service: &str, id: &str) -> Result<(), Failure> {
        let target = Target { service: service.into(), id: id.into() };
        let etcd = self.stage.etcd().clone();
        let printer = self.narrator.command(&format!("svcctl undrain {service} {id}"))?;
        let mut context = Context { etcd, printer, cancelled: Cancelled::never() };
        commands::undrain::run(&mut context, &Undrain { target }).await?;
        self.narrator.answered();
        Ok(())
    }

    /// Ends the loads, and the books with them.
    async fn finish_loads(&mut self, title: &str) -> Result<(), Failure> {
        for (plan, report) in self.cast.finish_loads().await? {
            let totals = report.totals();
            self.before = self.before + totals;
            let (p50_ms, p99_ms, longest_gap_ms) = (report.p50_ms, report.p99_ms, report.longest_gap_ms);
            self.ledger.measured(Latency { of: plan.name, totals, p50_ms, p99_ms, longest_gap_ms });
        }
        self.ledger.close(title, self.before, 0);
        self.ledger.verdict().map_err(|reason| Failure::new(Exit::Other, reason))
    }

    /// Ends a chapter's books once the counts have settled, and says what failed.
    async fn close(&mut self, title: &str, allowed: u64) -> Result<(), Failure> {
        self.cast.settle(self.narrator).await?;
        let failed = self.ledger.close(title, self.before + self.cast.totals(), allowed);
        if failed > 0 {
            let error = self.cast.last_error().unwrap_or_default();
            self.narrator
                .say(&format!("{failed} failed, the last with {}", crate::output::escape(&error)))?;
        }
        self.ledger.verdict().map_err(|reason| Failure::new(Exit::Other, reason))?;
        // Chapters are told apart by eye.
        sleep(Duration::from_millis(200)).await;
        Ok(())
    }
}
