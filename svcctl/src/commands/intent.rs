//! Writing and deleting the drain intent of an instance, as `drain`, `undrain` and `deregister` do.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use svc_registry::Etcd;
use svc_registry::intent::DrainIntent;

use crate::exit::{Exit, Failure};
use crate::inventory::{Inventory, Key};

/// How often an intent is written anew because other operators wrote theirs in between.
const ATTEMPTS: usize = 20;

/// Who is asking, for those who see the intent.
pub(super) fn operator() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
}

/// Puts the intent that `decide` makes of what is there, unless that refuses.
///
/// It is decided again whenever another intent for the service was written meanwhile: of two operators who drain the
/// last two instances at once, the second is refused.
pub(super) async fn put(
    etcd: &Etcd,
    key: &Key,
    ttl: Option<Duration>,
    decide: impl Fn(&Inventory) -> Result<DrainIntent, Failure>,
) -> Result<Inventory, Failure> {
    let (service, id) = key;
    let at = etcd.prefix().drain_intent(service, id);
    let doing = format!("writing {at}");
    let mut lease = None;
    for _ in 0..ATTEMPTS {
        let mut inventory = Inventory::read(etcd, Some(service)).await?;
        let intent = decide(&inventory)?;
        let lease = match (ttl, lease) {
            (None, _) => None,
            (Some(_), Some(granted)) => Some(granted),
            (Some(ttl), None) => Some(*lease.insert(grant(etcd, ttl, &doing).await?)),
        };
        let options = PutOptions::new().with_lease(lease.unwrap_or(0));
        let unchanged = Compare::mod_revision(
            etcd.prefix().drain_intents_of(service),
            CompareOp::Less,
            inventory.revision.0 + 1,
        )
        .with_prefix();
        let put = TxnOp::put(at.clone(), intent.encode(), Some(options));
        let answer = etcd
            .kv()
            .txn(Txn::new().when([unchanged]).and_then([put]))
            .await
            .map_err(|error| etcd.error(&doing, error))?;
        if answer.succeeded() {
            inventory.own.insert(key.clone(), intent);
            return Ok(inventory);
        }
    }
    Err(Failure::new(
        Exit::Other,
        format!("other intents for {service} were written {ATTEMPTS} times meanwhile; try again"),
    ))
}

/// The least that etcd can count down.
const LEAST_TTL: Duration = Duration::from_secs(1);

/// Refuses a `--ttl` below what etcd can count.
pub(super) fn countable(ttl: Option<Duration>) -> Result<(), Failure> {
    match ttl {
        Some(ttl) if ttl < LEAST_TTL => Err(Failure::new(Exit::Usage, "--ttl: the least is 1s")),
        _ => Ok(()),
    }
}

/// A lease that ends the intent by itself; whole seconds, rounded up, of which etcd gives at least two.
pub(super) async fn grant(etcd: &Etcd, ttl: Duration, doing: &str) -> Result<i64, Failure> {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let granted = etcd.leases().grant(seconds, None).await.map_err(|error| etcd.error(doing, error))?;
    Ok(granted.id())
}

/// Deletes the intent; whether there was one.
pub(super) async fn delete(etcd: &Etcd, key: &Key) -> Result<bool, Failure> {
    let at = etcd.prefix().drain_intent(&key.0, &key.1);
    let doing = format!("deleting {at}");
    let answer = etcd.kv().delete(at, None).await.map_err(|error| etcd.error(&doing, error))?;
    Ok(answer.deleted() > 0)
}

/// What is said of an instance that is not there, with those that are.
pub(super) fn unknown(inventory: &Inventory, (service, id): &Key) -> Failure {
    const SHOWN: usize = 10;
    let ids: Vec<&str> =
        inventory.entries.keys().filter(|key| key.0 == *service).map(|key| key.1.as_str()).collect();
    let there = match ids.len() {
        0 => "; it has none at all, `svcctl services` lists what there is".to_owned(),
        n if n <= SHOWN => format!("; it has {}", ids.join(", ")),
        n => format!("; it has {n}, `svcctl get {service}` lists them"),
    };
    Failure::new(Exit::NotFound, format!("no instance {id} of {service}{there}"))
}

/// Refuses to take the last instance that serves, unless told otherwise.
pub(super) fn not_the_last(inventory: &Inventory, key: &Key, force: bool) -> Result<(), Failure> {
    let (service, id) = key;
    let serves = inventory.entries.get(key).is_some_and(|e| e.record.state == svc_registry::State::Serving)
        && inventory.intent(key).is_none();
    if force || !serves || inventory.others_serving(service, id) > 0 {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!(
            "{service}/{id} is the last instance that serves {service}: its clients would have nobody to call; start \
             another, `svcctl undrain` one, or repeat with --force"
        ),
    ))
}
