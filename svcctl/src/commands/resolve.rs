//! `svcctl resolve TARGET`: whom a client of the target would call, and why not the others.

use serde::Serialize;
use svc_resolver::{Candidate, Resolver};

use crate::cli::Resolve;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Table;

/// The answer; `candidates` that are excluded say why.
#[derive(Debug, Serialize)]
struct Resolved<'a> {
    target: &'a str,
    candidates: Vec<Candidate>,
}

pub(crate) async fn run(context: &mut Context<'_>, args: &Resolve) -> Result<Exit, Failure> {
    let candidates = Resolver::new(&context.etcd).explain(&args.target).await?;
    let resolved = Resolved { target: &args.target, candidates };
    context.printer.result(&resolved, draw)?;
    if resolved.candidates.iter().any(|candidate| candidate.excluded.is_none()) {
        return Ok(Exit::Ok);
    }
    let found = match resolved.candidates.len() {
        0 => "there is no instance".to_owned(),
        n => format!("of {n} instances none may be called"),
    };
    Err(Failure::new(Exit::NotFound, format!("a client of {} has nobody to call: {found}", args.target)))
}

fn draw(resolved: &Resolved<'_>) -> Table {
    let mut table = Table::new(["ID", "ADDRESS", "WEIGHT", "ZONE", "VERSION", "CALLED"], "no instances");
    for candidate in &resolved.candidates {
        let called = match &candidate.excluded {
            None => "yes".to_owned(),
            Some(reason) => format!("no: {reason}"),
        };
        table.row([
            &candidate.id,
            &candidate.address,
            &candidate.weight.to_string(),
            candidate.zone.as_deref().unwrap_or_default(),
            candidate.version.as_deref().unwrap_or_default(),
            &called,
        ]);
    }
    table
}
