//! `svcctl register SERVICE --address HOST:PORT [--check CHECK] [-- COMMAND]`: an instance that cannot register itself.
//!
//! ```text
//! check (asked by Readiness), signals, COMMAND, the registration -> life (pure: what is done when) -> here: done
//! ```
//! The registrar keeps the record and obeys operators, as in a service's own process; this command lends it one, and
//! lives as long as the instance: until it is asked to end, or COMMAND has ended.

mod check;
mod command;
mod life;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use svc_registry::record::Address;
use svc_registry::{
    Instance, Phase, Readiness, ReadinessConfig, Registrar, RegistrarConfig, Registration,
    RegistrationStatus, Verdict,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::check::Check;
use self::command::Command;
use self::life::{Action, End, Event, Life};
use self::signals::Signals;
use crate::cli::Register;
use crate::context::{Cancelled, Context};
use crate::exit::{Exit, Failure};
use crate::output::{Printer, escape};

/// Longer nobody gives clients to take note.
const LONGEST_NOTICE: Duration = Duration::from_secs(24 * 3600);

/// How long etcd may take for the goodbye, and before it for taking the record out of clients' sight.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn run(context: &mut Context<'_>, args: &Register) -> Result<Exit, Failure> {
    let instance = instance(args)?;
    let address = instance.address().clone();
    let check = Check::parse(&args.check).map_err(|why| usage("--check", why))?;
    if args.tls && matches!(check, Check::Grpc { .. }) {
        return Err(usage("--check", "grpc is asked without TLS; with --tls use tcp or an http:// page"));
    }
    if args.notice > LONGEST_NOTICE {
        return Err(usage("--notice", "it is out of range; write 24h or less"));
    }
    let config = pace(args, &check);
    let registrar = RegistrarConfig { ttl: args.ttl, notice: args.notice };
    let registrar = Registrar::with_config(&context.etcd, registrar)?;
    // Before the command, whose first heartbeat may come at once.
    let readiness = Readiness::new(check.asks(address.clone()), config)?;
    let asking = match args.command.is_empty() {
        true => Asking::Cancelled(&mut context.cancelled),
        false => Asking::Signals(Signals::listen()?),
    };
    let command = Command::start(&args.command)?;

    let etcd = context.etcd.config().endpoints();
    let local = |member: &String| member.parse::<Address>().is_ok_and(|member| member.is_loopback());
    if address.is_loopback() && !etcd.iter().any(local) {
        context.printer.note(&format!("{address} is reached from this host only, but etcd is on another"));
    }
    let name = format!("{}/{}", instance.service(), instance.id());
    let keeper = Keeper {
        life: Life::new(command.is_some(), args.notice + PATIENCE),
        registrar,
        registration: None,
        instance,
        told: Narrator { name, printer: context.printer, last: String::new(), quiet_until: None },
    };
    keeper.keep(Sources { readiness, asking, command }).await
}

fn usage(flag: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{flag}: {why}"))
}

/// The instance that the command line describes.
fn instance(args: &Register) -> Result<Instance, Failure> {
    let id = args.id.clone().unwrap_or_else(|| default_id(&args.address));
    let mut instance = Instance::new(&args.service, &id, &args.address)?.with_tls(args.tls);
    if let Some(weight) = args.weight {
        instance = instance.with_weight(weight);
    }
    if let Some(zone) = &args.zone {
        instance = instance.with_zone(zone.as_str());
    }
    if let Some(version) = &args.version_tag {
        instance = instance.with_version(version.as_str());
    }
    for (name, value) in &args.tag {
        instance = instance.with_tag(name.as_str(), value.as_str());
    }
    instance.check()?;
    Ok(instance)
}

/// The address as an id may be written: two addresses never share one, unlike two ports of one host name.
fn default_id(address: &str) -> String {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let id: String = address.chars().map(|c| if valid(c) { c } else { '-' }).collect();
    id.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// How often the check is asked. A heartbeat has its patience in its own time: one look that finds none in it counts.
fn pace(args: &Register, check: &Check) -> ReadinessConfig {
    let default = match check {
        Check::Ttl { .. } => {
            ReadinessConfig { interval: Duration::from_secs(1), failures: 1, ..ReadinessConfig::default() }
        }
        _ => ReadinessConfig::default(),
    };
    ReadinessConfig {
        interval: args.interval.unwrap_or(default.interval),
        timeout: args.timeout.unwrap_or(default.timeout),
        failures: args.failures.unwrap_or(default.failures),
        successes: args.successes.unwrap_or(default.successes),
    }
}

/// Where events come from.
struct Sources<'a> {
    readiness: Readiness,
    asking: Asking<'a>,
    command: Option<Command>,
}

/// Who asks us to end.
enum Asking<'a> {
    /// With a command every signal is one to hand on.
    Signals(Signals),
    /// Without one, who runs us has had enough.
    Cancelled(&'a mut Cancelled),
}

/// The registration and its life.
struct Keeper<'a> {
    life: Life,
    registrar: Registrar,
    registration: Option<Followed>,
    instance: Instance,
    told: Narrator<'a>,
}

struct Followed {
    handle: Registration,
    phase: watch::Receiver<Phase>,
    status: watch::Receiver<RegistrationStatus>,
}

impl Keeper<'_> {
    async fn keep(mut self, mut sources: Sources<'_>) -> Result<Exit, Failure> {
        loop {
            let (due, quiet) = (self.life.due(), self.told.quiet_until);
            // Fair: every branch is short, and none may starve another.
            let event = tokio::select! {
                signal = sources.asking.next() => Event::Signal(signal),
                code = ended(&mut sources.command) => Event::Ended(code?),
                verdict = sources.readiness.changed() => self.judged(verdict),
                event = news(&mut self.registration) => event,
                () = at(due) => Event::Due,
                () = at(quiet) => Event::Nothing,
            };
            for action in self.life.on(event, Instant::now()) {
                if let Some(end) = self.act(action, sources.command.as_mut()).await? {
                    return end;
                }
            }
            self.tell();
        }
    }

    fn judged(&mut self, verdict: Verdict) -> Event {
        match (&verdict, self.registration.is_some()) {
            (Ok(()), false) => {}
            (Ok(()), true) => self.told.say("ready again"),
            (Err(reason), false) => self.told.say(&format!("not ready, so not registered: {reason}")),
            (Err(reason), true) => self.told.say(&format!("not ready: {reason}")),
        }
        Event::Verdict(verdict)
    }

    /// Does one thing; gives how the whole ends, if that is it.
    async fn act(
        &mut self,
        action: Action,
        command: Option<&mut Command>,
    ) -> Result<Option<Result<Exit, Failure>>, Failure> {
        match (action, &self.registration) {
            (Action::Register, _) => {
                let handle = self.registrar.register(self.instance.clone());
                let (phase, status) = (handle.phase(), handle.status());
                self.registration = Some(Followed { handle, phase, status });
            }
            (Action::Ready, Some(followed)) => followed.handle.ready(),
            (Action::Unready(reason), Some(followed)) => followed.handle.unready(&reason),
            (Action::Stop, Some(followed)) => {
                followed.handle.stop();
                self.told.say("leaving");
            }
            (Action::Deregister, Some(_)) => {
                let Some(followed) = self.registration.take() else { return Ok(None) };
                match followed.handle.deregister(PATIENCE).await {
                    Ok(()) => self.told.say("deregistered"),
                    Err(error) => self.told.printer.note(&escape(&error.to_string())),
                }
            }
            (Action::Ready | Action::Unready(_) | Action::Stop | Action::Deregister, None) => {}
            (Action::Forward(signal), _) => {
                if let Some(command) = command {
                    command.send(signal)?;
                }
            }
            (Action::End(end), _) => {
                return Ok(Some(match end {
                    End::Asked => Ok(Exit::Ok),
                    End::Command(code) => Ok(Exit::Command(code)),
                    End::Lost(why) => Err(Failure::new(Exit::Other, format!("{}: {why}", self.told.name))),
                }));
            }
        }
        Ok(None)
    }

    /// Says where the registration stands, if that is news.
    fn tell(&mut self) {
        let Some(followed) = &self.registration else { return };
        let status = followed.status.borrow().clone();
        let line = match (&status, *followed.phase.borrow()) {
            (RegistrationStatus::Removed { reason }, _) => {
                let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                format!("removed by an operator{why}; `svcctl undrain` lets it back")
            }
            (RegistrationStatus::Registered, Phase::Drained) if !self.life.is_leaving() => {
                "drained by an operator; `svcctl undrain` puts it back".to_owned()
            }
            (RegistrationStatus::Registered, Phase::Serving) if self.life.is_offered() => {
                format!("registered at {}", self.instance.address())
            }
            (
                RegistrationStatus::Registering { reason }
                | RegistrationStatus::Suspect { reason }
                | RegistrationStatus::Lost { reason },
                _,
            ) if !reason.is_empty() && **reason != *WAITING => {
                return self.told.grumble(&format!("etcd does not have it for sure, trying on: {reason}"));
            }
            _ => return,
        };
        self.told.say_once(&line);
    }
}

/// What a registration says of itself before it has asked etcd.
const WAITING: &str = "waiting for etcd";

/// Tells people, on stderr, without saying a thing twice in a row.
struct Narrator<'a> {
    name: String,
    printer: &'a mut Printer,
    last: String,
    /// What is wrong with etcd may change its words often: it is told once a second at most.
    quiet_until: Option<Instant>,
}

impl Narrator<'_> {
    fn say(&mut self, text: &str) {
        self.printer.note(&escape(&format!("{} {text}", self.name)));
        self.last = text.to_owned();
    }

    fn say_once(&mut self, text: &str) {
        if self.last != text {
            self.say(text);
        }
    }

    fn grumble(&mut self, text: &str) {
        let now = Instant::now();
        if self.quiet_until.is_some_and(|until| now < until) {
            return;
        }
        self.quiet_until = None;
        if self.last != text {
            self.say(text);
            self.quiet_until = Some(now + Duration::from_secs(1));
        }
    }
}

impl Asking<'_> {
    /// The next signal to react to. Cancel safe.
    async fn next(&mut self) -> signals::Signal {
        match self {
            Asking::Signals(signals) => signals.recv().await,
            Asking::Cancelled(cancelled) => {
                cancelled.asked().await;
                signals::Signal::Terminate
            }
        }
    }
}

/// How the command ended. Cancel safe.
async fn ended(command: &mut Option<Command>) -> Result<u8, Failure> {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

/// What the registration has to say. Cancel safe.
async fn news(registration: &mut Option<Followed>) -> Event {
    let Some(Followed { phase, status, .. }) = registration else { return std::future::pending().await };
    let (phased, changed) = tokio::select! {
        changed = phase.changed() => (true, changed.is_ok()),
        changed = status.changed() => (false, changed.is_ok()),
    };
    // Whoever ends says why before both fall silent.
    match &*status.borrow_and_update() {
        RegistrationStatus::Superseded { reason } => Event::Lost(Arc::clone(reason)),
        _ if !changed => Event::Lost("the registrar has failed; start it again".into()),
        _ if phased => Event::Phase(*phase.borrow_and_update()),
        _ => Event::Nothing,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_id_is_the_address() {
        for (address, id) in
            [("10.0.0.7:5432", "10.0.0.7-5432"), ("db:1", "db-1"), ("[2001:db8::1]:443", "2001-db8--1--443")]
        {
            assert_eq!(default_id(address), id);
            svc_registry::InstanceId::new(id).expect("a valid id");
        }
    }
}
