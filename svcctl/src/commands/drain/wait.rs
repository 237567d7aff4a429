//! The waiting of `svcctl drain --wait`: until the instance says that no call is in flight, or is gone.
//!
//! The wish is written already and stays, however the waiting ends; every message about an end says so.

use std::time::Duration;

use futures_util::StreamExt;
use svc_registry::State;
use svc_registry::catalog::{Catalog, CatalogEvent, Freshness};
use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::{Inventory, Key, selector};
use crate::output::view::Instance;

/// What the instance's record says about the waiting.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Its work is done; its record may be gone, as that of one that is to exit.
    Drained(Option<Box<Instance>>),
    /// It still has work, or has not said how much.
    Working(Option<u64>),
    /// Somebody took the wish back, or its time was over.
    Undrained,
}

fn judge(inventory: &Inventory, key: &Key) -> Seen {
    match inventory.instance(key) {
        None => Seen::Drained(None),
        Some(instance) if instance.state == State::Drained => Seen::Drained(Some(Box::new(instance))),
        Some(_) if inventory.intent(key).is_none() => Seen::Undrained,
        Some(instance) => Seen::Working(instance.inflight),
    }
}

pub(super) async fn until_drained(
    context: &mut Context<'_>,
    key: &Key,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let (service, id) = key;
    let stays = format!("the drain stays; `svcctl undrain {service} {id}` takes it back");
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut events = Catalog::new(&context.etcd).watch(selector(Some(service)));
    let mut inventory: Option<Inventory> = None;
    let mut said = String::new();
    loop {
        let event = tokio::select! {
            // The user first, then the clock: a wait that etcd holds up is left at once too.
            biased;
            () = context.cancelled.asked() => {
                context.printer.end_progress();
                return Err(Failure::new(Exit::Other, format!("no longer waiting for {service}/{id}: {stays}")));
            }
            () = at(deadline) => {
                context.printer.end_progress();
                let within = timeout.unwrap_or_default();
                let message = format!("{service}/{id} has not drained within {within:?}: {stays}");
                return Err(Failure::new(Exit::TimedOut, message));
            }
            event = events.next() => event,
        };
        let line = match event {
            // A subscription does not end by itself; if one did, there would be nothing to wait for.
            None => return Err(Failure::new(Exit::Other, format!("the watch has ended: {stays}"))),
            Some(CatalogEvent::Freshness(Freshness::Stale { reason, .. })) => {
                format!("{service}/{id}: still waiting, although etcd does not answer ({reason})")
            }
            Some(CatalogEvent::Freshness(Freshness::Live)) => continue,
            Some(CatalogEvent::Snapshot(snapshot)) => {
                let known = inventory.insert(Inventory::new(context.etcd.prefix(), snapshot));
                match look(context, known, key).await? {
                    None => continue,
                    Some(Told::Waiting(line)) => line,
                    Some(Told::Over(exit)) => return exit,
                }
            }
            Some(CatalogEvent::Changes(step)) => {
                let Some(known) = &mut inventory else { continue };
                step.changes.iter().for_each(|change| known.apply(change));
                match look(context, known, key).await? {
                    None => continue,
                    Some(Told::Waiting(line)) => line,
                    Some(Told::Over(exit)) => return exit,
                }
            }
        };
        if line != said {
            context.printer.progress(&crate::output::escape(&line));
            said = line;
        }
    }
}

enum Told {
    Waiting(String),
    Over(Result<Exit, Failure>),
}

/// What is known now. An instance that is not in it is gone or between the two roots, whose lists and watches are not of one
/// revision: only a read at one revision tells. `None` where etcd cannot be asked.
async fn look(context: &mut Context<'_>, known: &mut Inventory, key: &Key) -> Result<Option<Told>, Failure> {
    if !known.entries.contains_key(key) {
        match Inventory::read(&context.etcd, Some(&key.0)).await {
            Ok(read) => *known = read,
            Err(failure) if failure.exit == Exit::Unreachable => return Ok(None),
            Err(failure) => return Err(failure),
        }
    }
    told(context, known, key).map(Some)
}

/// What is to be said now, and whether the wait is over with it.
fn told(context: &mut Context<'_>, inventory: &Inventory, key: &Key) -> Result<Told, Failure> {
    let (service, id) = key;
    Ok(match judge(inventory, key) {
        Seen::Working(None) => Told::Waiting(format!("{service}/{id} draining")),
        Seen::Working(Some(1)) => Told::Waiting(format!("{service}/{id} draining, 1 call in flight")),
        Seen::Working(Some(n)) => Told::Waiting(format!("{service}/{id} draining, {n} calls in flight")),
        Seen::Drained(instance) => {
            context.printer.end_progress();
            let state = if instance.is_some() { "drained" } else { "gone" };
            context.printer.line(&instance, |_| format!("{service}/{id} {state}"))?;
            Told::Over(Ok(Exit::Ok))
        }
        Seen::Undrained => {
            context.printer.end_progress();
            let message = format!("{service}/{id} was undrained meanwhile, or its --ttl is over");
            Told::Over(Err(Failure::new(Exit::Other, message)))
        }
    })
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
