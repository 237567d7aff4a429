//! `svcctl demo`: the main job, told with real processes in about a minute.
//!
//! [`stage`] is where it plays: an etcd, a fault proxy in front of it, a folder for logs. [`child`] and [`load`] are
//! the actors: `greeter` and `greeter-load`, the binaries beside our own. [`story`] moves them, chapter by chapter;
//! [`ledger`] counts the calls of each chapter and says at the end whether any failed that should not have.

mod child;
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

/// Runs the demo to its last line, or until it is `cancelled`; leaves no process and no key behind either way.
pub(crate) async fn run(printer: &mut Printer, cancelled: Cancelled, args: &Demo) -> Result<Exit, Failure> {
    let mut narrator = Narrator::new(printer);
    let mut stage = Stage::set(args).await?;
    narrator.opening(&stage)?;

    let mut ledger = Ledger::default();
    let told = tokio::select! {
        // A user who has had enough is heard first.
        biased;
        () = cancelled => Err(Failure::new(Exit::Other, "interrupted")),
        told = story::tell(&mut stage, &mut narrator, &mut ledger) => told,
    };
    // The actors are gone with the story: what is left in etcd now would be left for ever.
    let cleared = stage.clear().await;
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
