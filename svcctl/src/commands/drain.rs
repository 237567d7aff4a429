//! `svcctl drain SERVICE ID`: writes the wish, and with `--wait` shows how it is obeyed.

use svc_registry::intent::{DrainIntent, Then};

use super::intent;
use crate::cli::Drain;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::{Inventory, Key};

mod wait;

pub(crate) async fn run(context: &mut Context<'_>, args: &Drain) -> Result<Exit, Failure> {
    let key = args.target.key()?;
    intent::countable(args.ttl)?;
    let inventory =
        intent::put(&context.etcd, &key, args.ttl, |inventory| decide(inventory, &key, args)).await?;
    let Some(instance) = inventory.instance(&key) else {
        // Only its wish was there: it may be restarting, and will find it.
        context.printer.note(&format!("{}/{} is not registered; it will start drained", key.0, key.1));
        return Ok(Exit::Ok);
    };
    if args.wait {
        return wait::until_drained(context, &key, args.timeout).await;
    }
    let said = match instance.state {
        svc_registry::State::Serving => "draining",
        other => other.as_str(),
    };
    context.printer.line(&instance, |_| format!("{}/{} {said}", key.0, key.1))?;
    Ok(Exit::Ok)
}

/// The intent that is to be put, in view of what is there.
fn decide(inventory: &Inventory, key: &Key, args: &Drain) -> Result<DrainIntent, Failure> {
    let old = inventory.own.get(key);
    match inventory.entries.get(key) {
        None if old.is_none() => return Err(intent::unknown(inventory, key)),
        Some(entry) if args.wait && entry.record.is_foreign() => {
            let (service, id) = key;
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{service}/{id} was registered by another system, which does not tell when its work is done; \
                     without --wait clients of this project leave it out"
                ),
            ));
        }
        _ => {}
    }
    intent::not_the_last(inventory, key, args.force)?;
    // Who asks to drain what is to exit or to be removed does not take that back.
    let then = old.map_or(Then::Stay, |old| old.then);
    Ok(DrainIntent::new(&args.reason, intent::operator()).then(then))
}
