//! `svcctl probe`: whether one address serves, by gRPC's health service; for the health checks of containers, which have
//! an exit code and nothing else. It asks the instance itself, and no etcd.

use std::time::Duration;

use svc_registry::record::Address;

use super::health;
use crate::cli::Probe;
use crate::exit::{Exit, Failure};
use crate::output::Printer;

pub(crate) async fn run(printer: &mut Printer, args: &Probe) -> Result<Exit, Failure> {
    let at = Address::new(&args.address)
        .map_err(|error| Failure::new(Exit::Usage, format!("{:?}: {error}", args.address)))?;
    let Probe { service, timeout, .. } = args;
    let limit: Duration = *timeout;
    let service = service.clone().unwrap_or_default();
    match tokio::time::timeout(limit, health::serving(at, service)).await {
        Ok(Ok(())) => {
            printer.text(&format!("{} serves", args.address))?;
            Ok(Exit::Ok)
        }
        Ok(Err(reason)) => Err(Failure::new(Exit::Other, reason)),
        Err(_) => {
            let limit = humantime::format_duration(limit);
            Err(Failure::new(Exit::Other, format!("{}: no answer within {limit}", args.address)))
        }
    }
}
