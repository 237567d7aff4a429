//! `svcctl deregister SERVICE ID`: out of the registry.
//!
//! A living owner would put its record right within a second, so it is asked: an intent with `then: remove`. Only a
//! record without a lease, which has no owner, is deleted directly, and only as it was read.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use svc_registry::LeaseId;
use svc_registry::catalog::Entry;
use svc_registry::intent::{DrainIntent, Then};
use svc_registry::keys::Root;

use super::intent;
use crate::cli::Deregister;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::Inventory;

pub(crate) async fn run(context: &mut Context<'_>, args: &Deregister) -> Result<Exit, Failure> {
    let key = args.target.key()?;
    let (service, id) = &key;
    let inventory = Inventory::read(&context.etcd, Some(service)).await?;
    let Some(entry) = inventory.entries.get(&key) else {
        return match inventory.own.get(&key) {
            Some(intent) if intent.then == Then::Remove => {
                context.printer.note(&format!("{service}/{id} is removed already"));
                Ok(Exit::Ok)
            }
            _ => Err(intent::unknown(&inventory, &key)),
        };
    };
    if entry.lease == LeaseId::NONE {
        intent::not_the_last(&inventory, &key, args.force)?;
        delete(context, entry).await?;
        let instance = inventory.instance(&key);
        context.printer.line(&instance, |_| format!("{service}/{id} deleted; its record had no owner"))?;
        return Ok(Exit::Ok);
    }

    let inventory = intent::put(&context.etcd, &key, None, |inventory| {
        if !inventory.entries.contains_key(&key) {
            return Err(intent::unknown(inventory, &key));
        }
        intent::not_the_last(inventory, &key, args.force)?;
        Ok(DrainIntent::new(&args.reason, intent::operator()).then(Then::Remove))
    })
    .await?;
    if let Some(instance) = inventory.instance(&key) {
        context.printer.line(&instance, |_| format!("{service}/{id} is asked to drain and to leave"))?;
    }
    if inventory.entries.get(&key).is_some_and(|entry| entry.record.is_foreign()) {
        context.printer.note(
            "its record was written by another system, which knows no such wish: clients of this project leave it \
             out, others go on until its owner ends",
        );
    } else {
        context.printer.note(&format!("it stays away until `svcctl undrain {service} {id}`"));
    }
    Ok(Exit::Ok)
}

async fn delete(context: &Context<'_>, entry: &Entry) -> Result<(), Failure> {
    let (prefix, record) = (context.etcd.prefix(), &entry.record);
    let key = match entry.root {
        Root::Serving => prefix.record(&record.service, &record.id),
        Root::Draining => prefix.draining_record(&record.service, &record.id),
    };
    let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, entry.modified.0);
    let delete = TxnOp::delete(key.as_str(), None);
    let answer = context.etcd.kv().txn(Txn::new().when([unchanged]).and_then([delete])).await;
    let answer = answer.map_err(|error| context.etcd.error(&format!("deleting {key}"), error))?;
    if answer.succeeded() {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, format!("{key} was written meanwhile; look at it and try again")))
}
