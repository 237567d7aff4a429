//! `svcctl services`: every service with its counts.

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::Inventory;
use crate::output;

pub(crate) async fn run(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let inventory = Inventory::read(&context.etcd, None).await?;
    context.printer.result(&inventory.services(), output::services)?;
    if inventory.entries.is_empty() {
        let (prefix, etcd) = (context.etcd.prefix(), context.etcd.endpoints());
        context
            .printer
            .note(&format!("nothing is registered under {}/ in the etcd at {etcd}", prefix.as_str()));
    }
    Ok(Exit::Ok)
}
