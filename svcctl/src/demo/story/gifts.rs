//! The second half: gifts are sent, each of them through edge, gift and balance. Whatever happens to these, every gift
//! arrives, and no coin is lost or made.

use super::{AWAY, Failure, LOOK, Plan, STOP, Signal, Tale};
use crate::demo::coins::Coins;
use crate::exit::Exit;

/// Who plays, by service and id.
const ACTORS: [(&str, &str); 5] = [
    ("balance", "balance-1"),
    ("balance", "balance-2"),
    ("gift", "gift-1"),
    ("gift", "gift-2"),
    ("edge", "edge-1"),
];
pub(super) const IDS: [&str; 5] = ["balance-1", "balance-2", "gift-1", "gift-2", "edge-1"];

/// How those who call others do it. Every order is known by its `biz_id`: it may be repeated.
const CALL_BALANCE: &str =
    r#"[{"name": "balance", "timeout": "2s", "retry": {"max": 4, "backoff": "50ms"}}]"#;
const CALL_ALL: &str = r#"[{"name": "gift", "retry": {"max": 4, "backoff": "50ms"}},
    {"name": "balance", "retry": {"max": 4, "backoff": "50ms"}}]"#;

/// A shop that orders gifts, and orders again what had no answer.
const GIFTS: Plan = Plan {
    name: "gifts",
    binary: "edge-load",
    callers: 8,
    flags: &["--call", "gift", "--rate", "20", "--receivers", "2", "--deadline", "20s"],
};

impl Tale<'_, '_> {
    pub(super) async fn gifts(&mut self, keep: bool) -> Result<(), Failure> {
        let before = self.open().await?;
        self.kill_a_balance().await?;
        self.drain_a_gift().await?;
        self.etcd_away().await?;
        self.settle_up(before, keep).await
    }

    async fn open(&mut self) -> Result<Coins, Failure> {
        self.narrator.chapter("Two balances on one database, two gifts, and an edge")?;
        self.narrator.say(
            "A gift to two users is an order by HTTP to the edge. A gift service freezes the sender's coins at a balance,",
        )?;
        self.narrator
            .say("delivers, and has the coins paid out: each step written down before it is taken.")?;
        for (service, id) in ACTORS {
            self.actor(service, id)?;
        }
        let inventory = self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        self.narrator.say("$ svcctl get")?;
        self.narrator.instances(&inventory)?;
        let edge = self.stage.address(&inventory, "edge-1")?;
        self.cast.load(self.stage, GIFTS, vec!["--edge".to_owned(), format!("http://{edge}")])?;
        self.cast.until_good(self.narrator, 1).await?;
        let coins = Coins::count(self.stage).await?;
        self.narrator
            .say(&format!("20 users have been given {} coins; they send 20 gifts a second.", coins.all))?;
        self.cast.look(self.narrator, LOOK).await?;
        self.close("gifts are sent", 0).await?;
        Ok(coins)
    }

    async fn kill_a_balance(&mut self) -> Result<(), Failure> {
        let (service, victim) = ACTORS[0];
        self.narrator.chapter(&format!("{victim} is killed with SIGKILL, and started again"))?;
        self.narrator.say(
            "What was in flight on it is asked of the other, under the same biz_id: done once, whoever does it. No order may fail.",
        )?;
        let old = self.cast.incarnation(self.stage, victim).await?;
        self.cast.signal(victim, Signal::Kill)?;
        self.cast.ended(victim, STOP).await?;
        self.cast.until_good(self.narrator, 1).await?;
        self.cast.look(self.narrator, LOOK).await?;
        self.actor(service, victim)?;
        self.cast.until_renewed(self.stage, self.narrator, victim, old).await?;
        self.narrator.say(&format!("{victim} is back."))?;
        self.close(&format!("{victim} is killed"), 0).await
    }

    async fn drain_a_gift(&mut self) -> Result<(), Failure> {
        let (service, drained) = ACTORS[3];
        self.narrator.chapter(&format!("{drained} is drained, and put back"))?;
        self.drain_one(service, drained, "maintenance").await?;
        let inventory = self.cast.inventory(self.stage).await?;
        self.narrator.instances(&inventory)?;
        self.cast.look(self.narrator, LOOK).await?;
        self.undrain_one(service, drained).await?;
        self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        self.close(&format!("{drained} is drained"), 0).await
    }

    async fn etcd_away(&mut self) -> Result<(), Failure> {
        self.narrator.chapter(&format!("etcd is away for {} s, while gifts are sent", AWAY.as_secs()))?;
        self.narrator.say("Edge, gift and balance know one another; no order may fail.")?;
        self.stage.cut_off();
        self.cast.look(self.narrator, AWAY).await?;
        self.stage.thaw();
        self.cast.until_good(self.narrator, 1).await?;
        self.cast.until_serving(self.stage, self.narrator, &IDS).await?;
        self.close("etcd is away", 0).await
    }

    async fn settle_up(&mut self, before: Coins, keep: bool) -> Result<(), Failure> {
        self.narrator.chapter("The ledger is added up")?;
        self.finish_loads("the last gifts arrive").await?;
        let after = Coins::settled(self.stage).await?;
        self.ledger.coins(before.all, after.all);
        self.narrator.say("$ balance --check")?;
        for line in after.said.lines() {
            self.narrator.say(&format!("  {line}"))?;
        }
        if after.frozen != 0 {
            let reason = format!("{} coins are set aside for gifts that nobody ends", after.frozen);
            return Err(Failure::new(Exit::Other, reason));
        }
        self.narrator.say(&format!(
            "{} coins before, {} after: none lost, none made, none left lying.",
            before.all, after.all
        ))?;
        if keep {
            return self.open_for_all().await;
        }
        self.cast.stop_all(STOP).await
    }

    fn actor(&mut self, service: &'static str, id: &'static str) -> Result<(), Failure> {
        let database = self.stage.database(service);
        let flags: &[&str] = match service {
            "balance" => &["--database", &database],
            "gift" => &["--database", &database, "--grpc-clients", CALL_BALANCE],
            _ => &["--grpc-clients", CALL_ALL],
        };
        self.cast.start(self.stage, service, id, flags)
    }
}
