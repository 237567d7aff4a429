//! What came in, checked: a refusal is INVALID_ARGUMENT and names each field that is wrong.

use std::collections::HashSet;

use svc_proto::gift::v1 as proto;
use tonic::Status;

use super::catalogue;
use super::store::Order;
use crate::validate::Fields;

/// The largest user id: 2^53 - 1, which every JSON reader holds exactly.
const MAX_UID: i64 = (1 << 53) - 1;

/// The longest `biz_id`, in bytes: with what is put around it for the ledger it stays within the ledger's limit.
const MAX_BIZ_ID: usize = 64;

/// The most receivers of one sending.
const MAX_RECEIVERS: usize = 100;

/// What is to be sent.
pub(super) fn send(request: proto::SendGiftRequest) -> Result<Order, Status> {
    let proto::SendGiftRequest { gift_id, from_uid, to_uids, biz_id, scene_id } = request;
    let mut fields = Fields::new();
    fields.check("gift_id", gift_id > 0, format_args!("must be above 0, is {gift_id}"));
    check_uid(&mut fields, "from_uid", from_uid);
    let fits = (1..=MAX_RECEIVERS).contains(&to_uids.len());
    fields.check("to_uids", fits, format_args!("must be 1 to {MAX_RECEIVERS}, are {}", to_uids.len()));
    let mut seen = HashSet::with_capacity(to_uids.len().min(MAX_RECEIVERS));
    for (n, &to) in to_uids.iter().enumerate().take(MAX_RECEIVERS) {
        let field = format!("to_uids[{n}]");
        check_uid(&mut fields, &field, to);
        fields.check(&field, to != from_uid, "must be another user than from_uid");
        fields.check(&field, seen.insert(to), format_args!("is there already: {to}"));
    }
    check_biz_id(&mut fields, &biz_id);
    fields.check("scene_id", scene_id >= 0, format_args!("must not be negative, is {scene_id}"));
    fields.done()?;
    let item = catalogue::find(gift_id);
    let item = item.ok_or_else(|| Status::not_found(format!("there is no gift {gift_id}")))?;
    Ok(Order { biz_id, item, from: from_uid, to: to_uids, scene_id })
}

/// The sending that is asked for.
pub(super) fn biz_id(request: proto::GetSendingRequest) -> Result<String, Status> {
    let mut fields = Fields::new();
    check_biz_id(&mut fields, &request.biz_id);
    fields.done()?;
    Ok(request.biz_id)
}

/// Whose gifts, and behind which position.
pub(super) fn watch(request: &proto::WatchGiftsRequest) -> Result<(i64, Option<i64>), Status> {
    let mut fields = Fields::new();
    check_uid(&mut fields, "uid", request.uid);
    let after = request.after;
    let right = after.is_none_or(|after| after >= 0);
    fields.check("after", right, format_args!("must not be negative, is {}", after.unwrap_or_default()));
    fields.done()?;
    Ok((request.uid, after))
}

fn check_uid(fields: &mut Fields, field: &str, uid: i64) {
    fields.check(field, (1..=MAX_UID).contains(&uid), format_args!("must be from 1 to {MAX_UID}, is {uid}"));
}

fn check_biz_id(fields: &mut Fields, biz_id: &str) {
    let fits = (1..=MAX_BIZ_ID).contains(&biz_id.len());
    fields.check("biz_id", fits, format_args!("must have 1 to {MAX_BIZ_ID} bytes, has {}", biz_id.len()));
    fields.check("biz_id", !biz_id.chars().any(char::is_control), "must have no control characters");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn good() -> proto::SendGiftRequest {
        proto::SendGiftRequest {
            gift_id: 1,
            from_uid: 1,
            to_uids: vec![2, 3],
            biz_id: "b".into(),
            scene_id: 0,
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        assert!(send(good()).is_ok());
        let many = (2..103).collect::<Vec<i64>>();
        for (request, message) in [
            (proto::SendGiftRequest { gift_id: 0, ..good() }, "gift_id must be above 0, is 0"),
            (proto::SendGiftRequest { from_uid: -1, ..good() }, "from_uid must be from 1 to"),
            (proto::SendGiftRequest { to_uids: vec![], ..good() }, "to_uids must be 1 to 100, are 0"),
            (proto::SendGiftRequest { to_uids: many, ..good() }, "to_uids must be 1 to 100, are 101"),
            (proto::SendGiftRequest { to_uids: vec![2, 1], ..good() }, "to_uids[1] must be another user"),
            (proto::SendGiftRequest { to_uids: vec![2, 2], ..good() }, "to_uids[1] is there already: 2"),
            (proto::SendGiftRequest { to_uids: vec![1 << 53], ..good() }, "to_uids[0] must be from 1 to"),
            (
                proto::SendGiftRequest { biz_id: String::new(), ..good() },
                "biz_id must have 1 to 64 bytes, has 0",
            ),
            (proto::SendGiftRequest { biz_id: "x".repeat(65), ..good() }, "has 65"),
            (proto::SendGiftRequest { biz_id: "a\nb".into(), ..good() }, "biz_id must have no control"),
            (proto::SendGiftRequest { scene_id: -1, ..good() }, "scene_id must not be negative, is -1"),
        ] {
            let status = send(request).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(message), "{message:?}: {status}");
        }
        let unknown = send(proto::SendGiftRequest { gift_id: 99, ..good() }).unwrap_err();
        assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "there is no gift 99"));
        let behind = watch(&proto::WatchGiftsRequest { uid: 7, after: Some(-1) }).unwrap_err();
        assert_eq!(
            (behind.code(), behind.message()),
            (Code::InvalidArgument, "after must not be negative, is -1")
        );
    }
}
