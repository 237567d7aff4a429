//! `svcctl set SERVICE ID`: writes the operator's override of weight, zone and tags; the instance obeys.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use svc_registry::intent::SetIntent;

use super::intent;
use crate::cli::Set;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::{Inventory, Key};

/// How often an override is written anew because another operator wrote one in between.
const ATTEMPTS: usize = 20;

pub(crate) async fn run(context: &mut Context<'_>, args: &Set) -> Result<Exit, Failure> {
    let key = args.target.key()?;
    let (service, id) = &key;
    intent::countable(args.ttl)?;
    let at = context.etcd.prefix().set_intent(service, id);
    if args.clear {
        let doing = format!("deleting {at}");
        let answer = context.etcd.kv().delete(at, None).await;
        let deleted = answer.map_err(|error| context.etcd.error(&doing, error))?.deleted() > 0;
        let inventory = Inventory::read(&context.etcd, Some(service)).await?;
        let said = if deleted { "is asked to be what it was started as" } else { "had no override" };
        return match inventory.instance(&key) {
            Some(instance) => {
                context.printer.line(&instance, |_| format!("{service}/{id} {said}"))?;
                Ok(Exit::Ok)
            }
            None if deleted => {
                context.printer.note(&format!("{service}/{id} is not registered; its override is gone"));
                Ok(Exit::Ok)
            }
            None => Err(intent::unknown(&inventory, &key)),
        };
    }
    let set = put(context, &key, &at, args).await?;
    let said = String::from_utf8_lossy(&set.encode()).into_owned();
    let inventory = Inventory::read(&context.etcd, Some(service)).await?;
    match inventory.instance(&key) {
        Some(instance) => context
            .printer
            .line(&instance, |_| format!("{service}/{id} is asked for {}", crate::output::escape(&said)))?,
        None => context.printer.note(&format!("{service}/{id} is not registered; it will start so")),
    }
    Ok(Exit::Ok)
}

/// Lays what is asked for over the override that is there.
async fn put(context: &Context<'_>, key: &Key, at: &str, args: &Set) -> Result<SetIntent, Failure> {
    let etcd = &context.etcd;
    let doing = format!("writing {at}");
    let mut lease = 0;
    for _ in 0..ATTEMPTS {
        let answer = etcd.kv().get(at, None).await.map_err(|error| etcd.error(&doing, error))?;
        let there = answer.kvs().first();
        if there.is_none() {
            known(&Inventory::read(etcd, Some(&key.0)).await?, key)?;
        }
        let before = there.map(|there| SetIntent::decode(there.value())).unwrap_or_default();
        let set = before.merged(asked(args));
        if let Some(ttl) = args.ttl
            && lease == 0
        {
            lease = intent::grant(etcd, ttl, &doing).await?;
        }
        let revision = there.map_or(0, etcd_client::KeyValue::mod_revision);
        let unchanged = Compare::mod_revision(at, CompareOp::Equal, revision);
        let put = TxnOp::put(at, set.encode(), Some(PutOptions::new().with_lease(lease)));
        let answer = etcd.kv().txn(Txn::new().when([unchanged]).and_then([put])).await;
        if answer.map_err(|error| etcd.error(&doing, error))?.succeeded() {
            return Ok(set);
        }
    }
    let text = format!("{at} was written {ATTEMPTS} times meanwhile; try again");
    Err(Failure::new(Exit::Other, text))
}

/// Refuses an id that nobody has, and one whose owner would not obey.
fn known(inventory: &Inventory, key: &Key) -> Result<(), Failure> {
    let (service, id) = key;
    match inventory.entries.get(key) {
        None => Err(intent::unknown(inventory, key)),
        Some(entry) if entry.record.is_foreign() => Err(Failure::new(
            Exit::Refused,
            format!(
                "{service}/{id} was registered by another system, which does not obey; change it there, or with \
                 `svcctl drain` take it out"
            ),
        )),
        Some(_) => Ok(()),
    }
}

fn asked(args: &Set) -> SetIntent {
    let removed = args.untag.iter().map(|name| (name.clone(), None));
    let added = args.tag.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
    SetIntent { weight: args.weight, zone: args.zone.clone(), tags: removed.chain(added).collect() }
}
