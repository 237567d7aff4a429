//! `svcctl undrain SERVICE ID`: takes the operator's wish back, whatever it was; the instance does the rest.

use super::intent;
use crate::cli::Undrain;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::Inventory;

pub(crate) async fn run(context: &mut Context<'_>, args: &Undrain) -> Result<Exit, Failure> {
    let key = args.target.key()?;
    let (service, id) = &key;
    let deleted = intent::delete(&context.etcd, &key).await?;
    let inventory = Inventory::read(&context.etcd, Some(service)).await?;
    if !deleted && !inventory.entries.contains_key(&key) {
        return Err(intent::unknown(&inventory, &key));
    }
    if inventory.all.contains_key(service) {
        let at = context.etcd.prefix().drain_intent_for_all(service);
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{service}/{id} stays drained: a wish for all of {service} holds at {at}; delete that first"
            ),
        ));
    }
    let said = if deleted { "undrained" } else { "was not drained" };
    match inventory.instance(&key) {
        Some(instance) => context.printer.line(&instance, |_| format!("{service}/{id} {said}"))?,
        // It had been removed; nothing but its absence is to be shown until it registers again.
        None => context.printer.note(&format!("{service}/{id} {said}; it may register again")),
    }
    Ok(Exit::Ok)
}
