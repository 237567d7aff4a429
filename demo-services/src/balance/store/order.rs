//! Orders that are carried out: coins are frozen, or issued.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{AnyConnection, Row};

use super::super::ledger::{Order, Refusal, Share, State, Transaction};
use super::read::{COLUMNS, transaction};
use super::{Error, Store, book};
use crate::database::{Dialect, Job, groups};

/// On what terms coins are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What the receiver is paid of them.
    pub share: Share,
    /// How long they wait before they go back.
    pub limit: Duration,
}

impl Store {
    /// Sets coins aside; the same order again gives the same transaction.
    ///
    /// # Errors
    /// The sender has too few; the `biz_id` stands for another order.
    pub async fn freeze(&self, order: Order, terms: Terms, now_ms: i64) -> Result<Transaction, Error> {
        let limit = i64::try_from(terms.limit.as_millis()).unwrap_or(i64::MAX);
        let new = Transaction {
            seq: 0,
            tx_id: new_tx_id(),
            state: State::Frozen,
            receiver_coin: terms.share.of(order.coin),
            order,
            created_ms: now_ms,
            expires_ms: Some(now_ms.saturating_add(limit)),
            completed_ms: None,
        };
        let done = self.0.write(CarryOut { new: vec![new] }).await?;
        done.into_iter().next().ok_or_else(|| Error::Internal("an order without an answer".to_owned()))
    }

    /// Issues coins, all of the orders or none; those that were carried out before count as done. Gives the
    /// transactions in the order of the orders, whose `biz_id`s differ.
    ///
    /// # Errors
    /// An account would hold too much; a `biz_id` stands for another order.
    pub async fn add(&self, orders: Vec<Order>, now_ms: i64) -> Result<Vec<Transaction>, Error> {
        let new = orders.into_iter().map(|order| Transaction {
            seq: 0,
            tx_id: new_tx_id(),
            state: State::Added,
            receiver_coin: order.coin.get(),
            order,
            created_ms: now_ms,
            expires_ms: None,
            completed_ms: Some(now_ms),
        });
        self.0.write(CarryOut { new: new.collect() }).await
    }
}

/// A name that nobody else gives: 128 random bits. A `UNIQUE` stands behind it.
fn new_tx_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Carries out orders that are not known yet; gives what there then is for each.
struct CarryOut {
    new: Vec<Transaction>,
}

impl Job for CarryOut {
    type Answer = Vec<Transaction>;
    type Refusal = Refusal;

    async fn run(&self, connection: &mut AnyConnection, dialect: Dialect) -> Result<Self::Answer, Error> {
        let begun = self.insert(connection).await?;
        let mut all = self.known(connection, &begun).await?;
        let mut posts = Vec::with_capacity(begun.len());
        for new in &self.new {
            if let Some(&seq) = begun.get(&new.order.biz_id) {
                posts.push((seq, book::BEGINNING, new.beginning()));
                all.insert(new.order.biz_id.clone(), Transaction { seq, ..new.clone() });
            }
        }
        if !posts.is_empty() {
            book::post(connection, dialect, &posts).await?;
        }
        let answers = self.new.iter().map(|new| {
            let found = all.remove(&new.order.biz_id);
            found.ok_or_else(|| Error::Internal(format!("biz_id {:?} comes twice", new.order.biz_id)))
        });
        answers.collect()
    }
}

impl CarryOut {
    /// Writes down the orders whose `biz_id` is free. One that is being written down by somebody else is waited for:
    /// it is taken when that succeeds, free when it fails. In the order of their `biz_id`s, so that two batches do not
    /// wait for each other.
    async fn insert(&self, connection: &mut AnyConnection) -> Result<HashMap<String, i64>, Error> {
        let mut sorted: Vec<&Transaction> = self.new.iter().collect();
        sorted.sort_by(|one, other| one.order.biz_id.cmp(&other.order.biz_id));
        let inserted = format!(
            "INSERT INTO transactions (tx_id, biz_id, state, from_uid, to_uid, coin, biz_type, scene_id, \
             receiver_coin, created_ms, expires_ms, completed_ms) VALUES {} \
             ON CONFLICT (biz_id) DO NOTHING RETURNING biz_id, seq",
            groups(sorted.len(), 12)
        );
        let mut query = sqlx::query(&inserted).persistent(sorted.len() == 1);
        for new in sorted {
            let order = &new.order;
            query = query
                .bind(&new.tx_id)
                .bind(&order.biz_id)
                .bind(super::read::state_name(new.state))
                .bind(order.from.map_or(0, |uid| uid.get()))
                .bind(order.to.get())
                .bind(order.coin.get())
                .bind(i64::from(order.biz_type))
                .bind(order.scene_id)
                .bind(new.receiver_coin)
                .bind(new.created_ms)
                .bind(new.expires_ms)
                .bind(new.completed_ms);
        }
        let rows = query.fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The transactions that the other `biz_id`s stand for, each with the body that is asked for now.
    async fn known(
        &self,
        connection: &mut AnyConnection,
        begun: &HashMap<String, i64>,
    ) -> Result<HashMap<String, Transaction>, Error> {
        let asked: Vec<&Transaction> =
            self.new.iter().filter(|new| !begun.contains_key(&new.order.biz_id)).collect();
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let read =
            format!("SELECT {COLUMNS} FROM transactions WHERE biz_id IN (VALUES {})", groups(asked.len(), 1));
        let mut query = sqlx::query(&read).persistent(asked.len() == 1);
        for new in &asked {
            query = query.bind(&new.order.biz_id);
        }
        let mut known = HashMap::with_capacity(asked.len());
        for row in query.fetch_all(connection).await? {
            let found = transaction(&row)?;
            known.insert(found.order.biz_id.clone(), found);
        }
        for new in asked {
            match known.get(&new.order.biz_id) {
                Some(found) if found.order == new.order => {}
                Some(_) => return Err(Refusal::OtherBody { biz_id: new.order.biz_id.clone() }.into()),
                None => return Err(Error::Internal(format!("biz_id {:?} is gone", new.order.biz_id))),
            }
        }
        Ok(known)
    }
}
