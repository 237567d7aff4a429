//! `svcctl get [SERVICE]`: the instances, wherever their records lie.

use std::time::SystemTime;

use svc_registry::ServiceName;

use crate::cli::Get;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::inventory::Inventory;
use crate::output::{self, view};

pub(crate) async fn run(context: &mut Context<'_>, args: &Get) -> Result<Exit, Failure> {
    let service = args.service.as_deref().map(ServiceName::new).transpose()?;
    let instances = Inventory::read(&context.etcd, service.as_ref()).await?.instances();
    context.printer.result(&instances, draw)?;
    match service {
        // The same shape, empty, and a code that tells it from a service without trouble.
        Some(service) if instances.instances.is_empty() && instances.bad.is_empty() => {
            let prefix = context.etcd.prefix().as_str();
            Err(Failure::new(
                Exit::NotFound,
                format!("no instance of {service} under {prefix}/; `svcctl services` lists what there is"),
            ))
        }
        _ => Ok(Exit::Ok),
    }
}

fn draw(instances: &view::Instances) -> output::Table {
    let mut table = output::instances(&instances.instances, SystemTime::now());
    for bad in &instances.bad {
        table.footer(&format!("skipped {}: {}", bad.key, bad.reason));
    }
    table
}
