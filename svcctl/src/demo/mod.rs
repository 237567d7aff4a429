//! `svcctl demo`: the main job, told with real processes in about a minute.
//!
//! [`stage`] is where it plays: an etcd, a fault proxy in front of it, a folder for logs. [`child`] and [`load`] are
//! the actors: the services and their loads, the binaries beside our own. [`story`] moves them, chapter by chapter;
//! [`ledger`] counts the calls of each chapter, and [`coins`] what balance holds; both say at the end whether anything was
//! lost that should not have been.

mod child;
mod coins;
mod ledger;
mod load;
mod narrator;
mod stage;
mod story;

use crate::cli::Demo;
use crate::context::Cancelled;
use crate::exit::{Exit, Failure};
use crate::output::Printer;

use ledger::Ledger;
use narrator::Narrator;
use stage::Stage;
use story::Cast;

/// Runs the demo to its last line, or until it is `cancelled`; leaves no process and no key behind either way.
pub(crate) async fn run(
    printer: &mut Printer,
    mut cancelled: Cancelled,
    args: &Demo,
) -> Result<Exit, Failure> {
    let mut narrator = Narrator::new(printer);
    let mut stage = Stage::set(args).await?;
    narrator.opening(&stage)?;

    let (mut ledger, mut cast) = (Ledger::default(), Cast::default());
    let told = tokio::select! {
        // A user who has had enough is heard first.
        biased;
        () = cancelled.asked() => Err(Failure::new(Exit::Other, "interrupted")),
        told = story::tell(&mut stage, &mut narrator, &mut ledger, &mut cast, args.keep) => told,
    };
    let told = match told {
        Ok(()) if args.keep => story::stay(&mut stage, &mut narrator, &mut cast, &mut cancelled).await,
        told => told,
    };
    // Once the actors are gone, what is left in etcd would be left for ever.
    drop(cast);
    let cleared = match stage.clear().await {
        // Who was let try things may have left wishes, and killed whom they liked.
        Err(_) if args.keep && told.is_ok() => Ok(()),
        cleared => cleared,
    };
    narrator.answered();
    narrator.quiet();
    if let Err(failure) = told.and(cleared) {
        narrator.say(&format!("The processes' own words are in {}", stage.logs().display()))?;
        narrator.last(&format!("demo: {}, not ok: {failure}", ledger.total()))?;
        return Ok(Exit::Other);
    }
    narrator.closing(&ledger)?;
    match ledger.verdict() {
        Ok(()) => {
            stage.forget_logs();
            narrator.last(&format!("demo: {}, ok", ledger.total()))?;
            Ok(Exit::Ok)
        }
        Err(reason) => {
            narrator.say(&format!("The processes' own words are in {}", stage.logs().display()))?;
            narrator.last(&format!("demo: {}, not ok: {reason}", ledger.total()))?;
            Ok(Exit::Other)
        }
    }
}
