//! `svcctl watch [SERVICE]`: the instances as they are, then each change as it happens.

use futures_util::StreamExt;
use svc_registry::ServiceName;
use svc_registry::catalog::{Catalog, CatalogEvent, Change, Freshness};

use crate::cli::Watch;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::{Inventory, Key, selector};
use crate::output::view::{self, ChangeType};
use crate::output::{escape, watch_line};

pub(crate) async fn run(context: &mut Context<'_>, args: &Watch) -> Result<Exit, Failure> {
    let service = args.service.as_deref().map(ServiceName::new).transpose()?;
    // A command that is typed now wants to know now; once it runs, it outlives outages.
    context.etcd.ready(context.command_timeout()).await?;
    let mut events = Catalog::new(&context.etcd).watch(selector(service.as_ref()));
    let mut inventory = Inventory::default();
    let mut stale = false;
    loop {
        let event = tokio::select! {
            // The user first: whoever has had enough sees no further line.
            biased;
            () = context.cancelled.asked() => return Ok(Exit::Ok),
            event = events.next() => event,
        };
        match event {
            None => return Err(Failure::new(Exit::Other, "the watch has ended")),
            Some(CatalogEvent::Snapshot(snapshot)) => {
                inventory = Inventory::new(context.etcd.prefix(), snapshot);
                let all = inventory.instances();
                for object in all.instances {
                    print(context, ChangeType::Added, object)?;
                }
                for bad in all.bad {
                    context.printer.note(&format!("skipped {}: {}", bad.key, bad.reason));
                }
            }
            Some(CatalogEvent::Changes(step)) => {
                for change in &step.changes {
                    inventory.apply(change);
                    tell(context, &inventory, change)?;
                }
            }
            Some(CatalogEvent::Freshness(Freshness::Stale { denied: true, reason, .. })) => {
                return Err(Failure::new(Exit::Denied, format!("etcd refuses the watch: {reason}")));
            }
            Some(CatalogEvent::Freshness(Freshness::Stale { reason, .. })) if !stale => {
                stale = true;
                let reason = escape(&reason);
                context
                    .printer
                    .note(&format!("etcd does not answer ({reason}); what was printed may be out of date"));
            }
            Some(CatalogEvent::Freshness(Freshness::Live)) if stale => {
                stale = false;
                context.printer.note("etcd answers again");
            }
            Some(CatalogEvent::Freshness(_)) => {}
        }
    }
}

/// Prints what a change means for the instances; a wish changes those whom it means.
fn tell(context: &mut Context<'_>, inventory: &Inventory, change: &Change) -> Result<(), Failure> {
    match change {
        Change::Added(entry) => print(context, ChangeType::Added, inventory.view(entry)),
        Change::Modified(entry) => print(context, ChangeType::Modified, inventory.view(entry)),
        Change::Removed(entry) | Change::Held(entry, _) => {
            print(context, ChangeType::Deleted, inventory.view(entry))
        }
        Change::Intent(intent) | Change::IntentGone(intent) => {
            let target = &intent.target;
            let meant =
                |key: &&Key| key.0 == target.service && target.id.as_ref().is_none_or(|id| *id == key.1);
            let meant: Vec<view::Instance> =
                inventory.entries.keys().filter(meant).filter_map(|key| inventory.instance(key)).collect();
            meant.into_iter().try_for_each(|object| print(context, ChangeType::Modified, object))
        }
        Change::Bad(bad) => {
            context.printer.note(&format!("skipped {}: {}", bad.key, escape(&bad.reason)));
            Ok(())
        }
        Change::Policy(_) | Change::PolicyGone(_) | Change::BadGone(_) => Ok(()),
    }
}

fn print(context: &mut Context<'_>, change: ChangeType, object: view::Instance) -> Result<(), Failure> {
    context.printer.line(&view::Change { change, object }, watch_line)?;
    Ok(())
}
