//! What came in, checked: a refusal is INVALID_ARGUMENT and names each field that is wrong.

use std::collections::HashSet;

use svc_proto::balance::v1 as proto;
use tonic::Status;

use super::ledger::{Coin, End, MAX, Order, Uid};
use crate::validate::Fields;

/// The longest `biz_id`, in bytes.
const MAX_BIZ_ID: usize = 128;

/// The most operations of one batch.
const MAX_OPERATIONS: usize = 1000;

/// A user.
pub(super) fn uid(id: i64) -> Result<Uid, Status> {
    let mut fields = Fields::new();
    let uid = user(&mut fields, "uid", id);
    whole(fields, uid)
}

/// The order of a freeze.
pub(super) fn freeze(request: proto::FreezeUserCoinForGiftRequest) -> Result<Order, Status> {
    let proto::FreezeUserCoinForGiftRequest { from_uid, to_uid, coin, biz_type, biz_id, scene_id } = request;
    let mut fields = Fields::new();
    let from = user(&mut fields, "from_uid", from_uid);
    fields.check("to_uid", from_uid != to_uid, "must be another user than from_uid");
    let order = order(&mut fields, "", Asked { to_uid, coin, biz_type, biz_id, scene_id });
    whole(fields, from.zip(order).map(|(from, order)| Order { from: Some(from), ..order }))
}

/// The orders of a batch.
pub(super) fn batch(request: proto::BatchAddUserCoinRequest) -> Result<Vec<Order>, Status> {
    let operations = request.operations;
    let mut fields = Fields::new();
    let fits = (1..=MAX_OPERATIONS).contains(&operations.len());
    fields.check("operations", fits, format_args!("must be 1 to {MAX_OPERATIONS}, are {}", operations.len()));
    fields.done()?;

    let mut fields = Fields::new();
    let mut seen = HashSet::with_capacity(operations.len());
    let mut orders = Vec::with_capacity(operations.len());
    for (n, operation) in operations.into_iter().enumerate() {
        let proto::AddUserCoinOperation { to_uid, coin, biz_type, biz_id, scene_id } = operation;
        let at = format!("operations[{n}].");
        fields.check(format!("{at}biz_id"), seen.insert(biz_id.clone()), "is another operation's too");
        orders.push(order(&mut fields, &at, Asked { to_uid, coin, biz_type, biz_id, scene_id }));
    }
    whole(fields, orders.into_iter().collect())
}

/// The transaction and how it is to end.
pub(super) fn complete(request: proto::CompleteTransactionRequest) -> Result<(String, End), Status> {
    let end = match request.outcome() {
        proto::Outcome::Confirm => Some(End::Confirm),
        proto::Outcome::Refund => Some(End::Refund),
        proto::Outcome::Unspecified => None,
    };
    let mut fields = Fields::new();
    fields.check("tx_id", !request.tx_id.is_empty(), "is missing");
    fields.check("outcome", end.is_some(), "must be OUTCOME_CONFIRM or OUTCOME_REFUND");
    whole(fields, end.map(|end| (request.tx_id, end)))
}

/// What the two kinds of orders have in common, as it came in.
struct Asked {
    to_uid: i64,
    coin: i64,
    biz_type: i32,
    biz_id: String,
    scene_id: i64,
}

/// An order of the issuer's, if it is one; `at` is where it stands in the request.
fn order(fields: &mut Fields, at: &str, asked: Asked) -> Option<Order> {
    let Asked { to_uid, coin, biz_type, biz_id, scene_id } = asked;
    let name = |field: &str| format!("{at}{field}");
    let to = user(fields, &name("to_uid"), to_uid);
    let amount = Coin::new(coin);
    fields.check(name("coin"), amount.is_some(), format_args!("must be from 1 to {MAX}, is {coin}"));
    fields.check(name("biz_type"), biz_type >= 0, format_args!("must not be negative, is {biz_type}"));
    let fits = (1..=MAX_BIZ_ID).contains(&biz_id.len());
    fields.check(
        name("biz_id"),
        fits,
        format_args!("must have 1 to {MAX_BIZ_ID} bytes, has {}", biz_id.len()),
    );
    let plain = !biz_id.chars().any(char::is_control);
    fields.check(name("biz_id"), plain, "must have no control characters");
    fields.check(name("scene_id"), scene_id >= 0, format_args!("must not be negative, is {scene_id}"));
    Some(Order { from: None, to: to?, coin: amount?, biz_type, biz_id, scene_id })
}

fn user(fields: &mut Fields, field: &str, id: i64) -> Option<Uid> {
    let uid = Uid::new(id);
    fields.check(field, uid.is_some(), format_args!("must be from 1 to {MAX}, is {id}"));
    uid
}

/// What was read, unless a field is wrong. What could not be read has its field named.
fn whole<T>(fields: Fields, read: Option<T>) -> Result<T, Status> {
    fields.done()?;
    read.ok_or_else(|| Status::internal("a request that is wrong and right at once"))
}
