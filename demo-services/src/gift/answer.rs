//! What is known, in the words of the protocol.

use svc_proto::gift::v1 as proto;

use super::catalogue::Item;
use super::receipt::{Receipt, State};
use super::store::{Received, Sending};
use crate::time::timestamp;

/// A gift as a watch tells it.
pub(super) fn received(received: Received) -> proto::WatchGiftsResponse {
    proto::WatchGiftsResponse {
        position: received.position,
        gift: Some(item(received.item)),
        from_uid: received.from,
        biz_id: received.biz_id,
        scene_id: received.scene_id,
        deliver_time: Some(timestamp(received.delivered_ms)),
    }
}

/// A gift that can be sent.
pub(super) fn item(item: Item) -> proto::GiftItem {
    proto::GiftItem { gift_id: item.id, name: item.name, coin: item.coin }
}

/// A sending as it stands.
pub(super) fn sending(sending: Sending) -> proto::Sending {
    let state = match sending.has_ended() {
        true => proto::SendingState::Ended,
        false => proto::SendingState::Sending,
    };
    proto::Sending {
        biz_id: sending.biz_id,
        gift_id: sending.item.id,
        from_uid: sending.from,
        scene_id: sending.scene_id,
        coin: sending.item.coin,
        state: state.into(),
        receipts: sending.receipts.into_iter().map(receipt).collect(),
        create_time: Some(timestamp(sending.created_ms)),
    }
}

fn receipt(receipt: Receipt) -> proto::Receipt {
    let state = match receipt.state {
        State::Freezing => proto::ReceiptState::Freezing,
        State::Delivering => proto::ReceiptState::Delivering,
        State::Confirming => proto::ReceiptState::Confirming,
        State::Refunding => proto::ReceiptState::Refunding,
        State::Received => proto::ReceiptState::Received,
        State::Refunded => proto::ReceiptState::Refunded,
        State::Refused => proto::ReceiptState::Refused,
    };
    proto::Receipt { to_uid: receipt.to, state: state.into(), reason: receipt.reason, tx_id: receipt.tx_id }
}
