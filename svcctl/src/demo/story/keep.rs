//! `--keep`: the actors play on, and whoever looks on is told what to try.

use super::gifts;
use super::{Cast, Failure, IDS, Narrator, SERVICE, STOP, Stage, Tale};
use crate::context::Cancelled;

impl Tale<'_, '_> {
    /// The greeters come back: all services are there.
    pub(super) async fn open_for_all(&mut self) -> Result<(), Failure> {
        for id in IDS {
            self.greeter(id)?;
        }
        self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        Ok(())
    }
}

/// Says what can be tried, waits until the user has had enough, and lets everybody go home.
pub(in crate::demo) async fn stay(
    stage: &mut Stage,
    narrator: &mut Narrator<'_>,
    cast: &mut Cast,
    cancelled: &mut Cancelled,
) -> Result<(), Failure> {
    let inventory = cast.inventory(stage).await?;
    let edge = stage.address(&inventory, "edge-1")?;
    narrator.chapter("It stays up: try it in another terminal")?;
    narrator.instances(&inventory)?;
    narrator.say("")?;
    narrator.say(&format!("A page to send a gift and see it arrive: http://{edge}/"))?;
    narrator.say("")?;
    narrator.say(&format!("$ export PATH={}:$PATH", stage.binaries().display()))?;
    for (variable, value) in stage.environment() {
        narrator.say(&format!("$ export {variable}={value}"))?;
    }
    let last = gifts::IDS[3];
    for line in [
        "svcctl get".to_owned(),
        "svcctl watch".to_owned(),
        "greeter-load --seconds 60 &".to_owned(),
        format!("edge-load --edge http://{edge} --seconds 60 &"),
        format!("svcctl drain gift {last} --reason trying --wait && svcctl undrain gift {last}"),
        format!("svcctl set {SERVICE} {} --weight 10", IDS[0]),
        format!("kill -9 {}    # {}", cast.pid(IDS[1])?, IDS[1]),
        format!("curl http://{edge}/v1/services"),
        format!(
            "curl -H 'content-type: application/json' -d '{{\"name\": \"ada\"}}' http://{edge}/v1/greeter/SayHello"
        ),
        format!("balance --check --database {}", stage.database("balance")),
    ] {
        narrator.say(&format!("$ {line}"))?;
    }
    narrator.say("")?;
    narrator.say(&format!("The processes' own words are in {}", stage.logs().display()))?;
    narrator.say("Ctrl-c here ends it: everybody stops, and nothing is left behind.")?;
    cancelled.asked().await;
    cast.stop_kept(STOP).await;
    Ok(())
}
