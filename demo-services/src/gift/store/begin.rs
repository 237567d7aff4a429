//! A sending is written down, with what its `biz_id` stands for if it is known.

use sqlx::{AnyConnection, Row};

use super::super::catalogue::Item;
use super::super::receipt::Receipt;
use super::{Claim, Error, Refusal, Sending, Store, read, state_name};
use crate::database::{Dialect, Job, groups};
use crate::time::now_ms;

/// What a caller asks for: the same order under the same `biz_id` is the same sending, whatever it cost then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Order {
    /// What makes it known again.
    pub(in super::super) biz_id: String,
    /// What is to be sent.
    pub(in super::super) item: Item,
    /// Who pays.
    pub(in super::super) from: i64,
    /// Who receives, none twice.
    pub(in super::super) to: Vec<i64>,
    /// The caller's own numbering.
    pub(in super::super) scene_id: i64,
}

impl Order {
    fn is_of(&self, sending: &Sending) -> bool {
        self.item.id == sending.item.id
            && self.from == sending.from
            && self.scene_id == sending.scene_id
            && self.to.iter().eq(sending.receipts.iter().map(|receipt| &receipt.to))
    }
}

impl Store {
    /// Writes a sending down, claimed. Gives what then stands under its `biz_id`, and whether the claim is on it: it is
    /// not where it was known before.
    ///
    /// # Errors
    /// The `biz_id` stands for another sending; the database is away.
    pub(in super::super) async fn begin(
        &self,
        order: Order,
        claim: &Claim,
    ) -> Result<(Sending, bool), Error> {
        self.0.write(Begin { order, claim: claim.clone() }).await
    }
}

struct Begin {
    order: Order,
    claim: Claim,
}

impl Job for Begin {
    type Answer = (Sending, bool);
    type Refusal = Refusal;

    async fn run(&self, connection: &mut AnyConnection, _: Dialect) -> Result<Self::Answer, Error> {
        let Order { biz_id, item, from, to, scene_id } = &self.order;
        let created_ms = now_ms();
        // One that is being written down by somebody else is waited for.
        let begun = sqlx::query_scalar::<_, i64>(
            "INSERT INTO sendings (biz_id, gift_id, gift_name, coin, from_uid, scene_id, created_ms, under_way, \
             claimed_by, claimed_until_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (biz_id) DO NOTHING RETURNING seq",
        )
        .bind(biz_id)
        .bind(item.id)
        .bind(&item.name)
        .bind(item.coin)
        .bind(from)
        .bind(scene_id)
        .bind(created_ms)
        .bind(i64::try_from(to.len()).unwrap_or(i64::MAX))
        .bind(self.claim.name())
        .bind(self.claim.until_ms())
        .fetch_optional(&mut *connection)
        .await?;
        let Some(seq) = begun else { return self.known(connection).await };

        let receipts: Vec<Receipt> = to.iter().map(|&to| Receipt::new(to)).collect();
        let inserted = format!(
            "INSERT INTO receipts (sending, to_uid, place, state, tx_id, deliver_by_ms, reason) VALUES {}",
            groups(receipts.len(), 7)
        );
        let mut query = sqlx::query(&inserted).persistent(receipts.len() == 1);
        for (place, receipt) in (0i64..).zip(&receipts) {
            query = query
                .bind(seq)
                .bind(receipt.to)
                .bind(place)
                .bind(state_name(receipt.state))
                .bind(&receipt.tx_id)
                .bind(receipt.deliver_by_ms)
                .bind(&receipt.reason);
        }
        query.execute(connection).await?;
        let (biz_id, item) = (biz_id.clone(), item.clone());
        Ok((Sending { seq, biz_id, item, from: *from, scene_id: *scene_id, created_ms, receipts }, true))
    }
}

impl Begin {
    /// What the `biz_id` stands for. It is ours if an earlier run of this job has written it down.
    async fn known(&self, connection: &mut AnyConnection) -> Result<(Sending, bool), Error> {
        let biz_id = &self.order.biz_id;
        let gone = || Error::Internal(format!("biz_id {biz_id:?} is gone"));
        let row = sqlx::query("SELECT seq, claimed_by FROM sendings WHERE biz_id = $1").bind(biz_id);
        let row = row.fetch_optional(&mut *connection).await?.ok_or_else(gone)?;
        let claimed_by: String = row.try_get(1)?;
        let sending = read::sending(connection, row.try_get(0)?).await?.ok_or_else(gone)?;
        if !self.order.is_of(&sending) {
            return Err(Refusal::OtherBody { biz_id: biz_id.clone() }.into());
        }
        Ok((sending, claimed_by == self.claim.name()))
    }
}
