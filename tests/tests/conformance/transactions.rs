//! Transactions: compares, branches, one revision, nesting, duplicate keys.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::support::{pairs, put, refusal, refused};

const OPERATORS: [CompareOp; 4] =
    [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual];

async fn holds(client: &mut Client, compare: Compare) -> bool {
    client.txn(Txn::new().when([compare])).await.unwrap().succeeded()
}

/// What each operator says when the key's value is less than, equal to and greater than the given one.
async fn holds_in_order(client: &mut Client, compare: impl Fn(CompareOp, i64) -> Compare, value: i64) {
    for (operator, expected) in OPERATORS.into_iter().zip([
        [false, true, false],
        [false, false, true],
        [true, false, false],
        [true, false, true],
    ]) {
        for (given, expected) in [value + 1, value, value - 1].into_iter().zip(expected) {
            let held = holds(client, compare(operator, given)).await;
            assert_eq!(held, expected, "{value} {operator:?} {given}");
        }
    }
}

fn duplicate() -> (Code, String) {
    refused(Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
}

fn put_op(key: &str) -> TxnOp {
    TxnOp::put(key, "v", None)
}

fn delete_prefix(key: &str) -> TxnOp {
    TxnOp::delete(key, Some(DeleteOptions::new().with_prefix()))
}

fn nested(then: Vec<TxnOp>, otherwise: Vec<TxnOp>) -> TxnOp {
    TxnOp::txn(Txn::new().and_then(then).or_else(otherwise))
}

laws! {
    async fn each_target_is_compared_by_each_operator(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let lease = client.lease_grant(60, None).await.unwrap().id();
        let created = put(&mut client, "k", "m").await;
        client.put("k", "m", Some(PutOptions::new().with_lease(lease))).await.unwrap();
        let modified = created + 1;
        holds_in_order(&mut client, |op, n| Compare::version("k", op, n), 2).await;
        holds_in_order(&mut client, |op, n| Compare::create_revision("k", op, n), created).await;
        holds_in_order(&mut client, |op, n| Compare::mod_revision("k", op, n), modified).await;
        holds_in_order(&mut client, |op, n| Compare::lease("k", op, n), lease).await;
        let letters = |op, n: i64| Compare::value("k", op, [u8::try_from(n).unwrap()]);
        holds_in_order(&mut client, letters, i64::from(b'm')).await;
    }

    async fn a_missing_key_is_all_zeros_and_has_no_value(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        holds_in_order(&mut client, |op, n| Compare::version("none", op, n), 0).await;
        holds_in_order(&mut client, |op, n| Compare::create_revision("none", op, n), 0).await;
        holds_in_order(&mut client, |op, n| Compare::mod_revision("none", op, n), 0).await;
        holds_in_order(&mut client, |op, n| Compare::lease("none", op, n), 0).await;
        for operator in OPERATORS {
            assert!(!holds(&mut client, Compare::value("none", operator, "")).await, "{operator:?}");
        }
    }

    async fn a_compare_of_a_range_must_hold_for_each_key(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        put(&mut client, "k/1", "a").await;
        put(&mut client, "k/2", "b").await;
        let all = |compare: Compare| compare.with_prefix();
        assert!(holds(&mut client, all(Compare::version("k/", CompareOp::Equal, 1))).await);
        assert!(!holds(&mut client, all(Compare::value("k/", CompareOp::Equal, "a"))).await);
        assert!(holds(&mut client, all(Compare::version("none/", CompareOp::Equal, 0))).await, "no key: zeros");
        assert!(!holds(&mut client, Compare::value("k/1", CompareOp::Greater, "a").with_range("k/3")).await);
        assert!(holds(&mut client, Compare::value("k/2", CompareOp::Greater, "a").with_range("k/3")).await);
    }

    async fn all_of_a_transaction_is_one_revision_and_reads_see_what_came_before(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let before = put(&mut client, "k/1", "old").await;
        let read = || TxnOp::get("k/", Some(GetOptions::new().with_prefix()));
        let ops = [read(), put_op("k/2"), TxnOp::delete("k/1", None), read()];
        let answer = client.txn(Txn::new().and_then(ops)).await.unwrap();
        assert!(answer.succeeded(), "no compares");
        assert_eq!(answer.header().unwrap().revision(), before + 1);
        let answers = answer.op_responses();
        let [TxnOpResponse::Get(first), TxnOpResponse::Put(_), TxnOpResponse::Delete(delete), TxnOpResponse::Get(last)] =
            &answers[..]
        else {
            panic!("answers in the order of the operations, not {answers:?}")
        };
        assert_eq!(pairs(first.kvs()), [("k/1".into(), "old".into())]);
        assert_eq!(delete.deleted(), 1);
        assert_eq!(pairs(last.kvs()), [("k/2".into(), "v".into())]);
        assert_eq!(last.kvs()[0].mod_revision(), before + 1);
        assert_eq!(first.header().unwrap().revision(), before, "as it was at that point");
        assert_eq!(last.header().unwrap().revision(), before + 1);
        assert_eq!(last.header().unwrap().cluster_id(), 0, "the inner headers tell only the revision");
    }

    async fn the_failure_branch_runs_when_a_compare_does_not_hold(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let txn = Txn::new()
            .when([Compare::version("k", CompareOp::Greater, 0)])
            .and_then([TxnOp::put("k", "then", None)])
            .or_else([TxnOp::put("k", "otherwise", None)]);
        assert!(!client.txn(txn.clone()).await.unwrap().succeeded());
        assert_eq!(client.get("k", None).await.unwrap().kvs()[0].value(), b"otherwise");
        assert!(client.txn(txn).await.unwrap().succeeded());
        assert_eq!(client.get("k", None).await.unwrap().kvs()[0].value(), b"then");
    }

    async fn a_transaction_that_writes_nothing_has_no_revision(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let before = put(&mut client, "k", "v").await;
        let txn = Txn::new().and_then([TxnOp::get("k", None), TxnOp::delete("none", None)]);
        assert_eq!(client.txn(txn).await.unwrap().header().unwrap().revision(), before);
    }

    async fn compares_of_nested_transactions_look_at_the_state_before(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let inner = Txn::new()
            .when([Compare::version("k", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("seen", "absent", None)])
            .or_else([TxnOp::put("seen", "present", None)]);
        let answer = client.txn(Txn::new().and_then([put_op("k"), TxnOp::txn(inner)])).await.unwrap();
        let TxnOpResponse::Txn(inner) = &answer.op_responses()[1] else { panic!("{answer:?}") };
        assert!(inner.succeeded(), "the put before it does not count");
        assert_eq!(inner.header().map(etcd_client::ResponseHeader::revision), Some(0), "the outer one tells the revision");
        let kv = client.get("seen", None).await.unwrap().kvs()[0].clone();
        assert_eq!((kv.value(), kv.mod_revision()), (&b"absent"[..], answer.header().unwrap().revision()));
    }

    async fn a_key_put_twice_or_put_and_deleted_is_refused(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let cases = [
            ("twice", vec![put_op("k"), put_op("k")]),
            ("put and deleted", vec![put_op("k"), TxnOp::delete("k", None)]),
            ("deleted and put", vec![TxnOp::delete("k", None), put_op("k")]),
            ("within a deleted prefix", vec![put_op("k/1"), delete_prefix("k/")]),
            ("outside and nested", vec![put_op("k"), nested(vec![put_op("k")], vec![])]),
            ("in two nested ones", vec![nested(vec![put_op("k")], vec![]), nested(vec![], vec![put_op("k")])]),
            ("nested, deleted outside", vec![nested(vec![], vec![put_op("k")]), TxnOp::delete("k", None)]),
            ("put outside, deleted nested", vec![nested(vec![TxnOp::delete("k", None)], vec![]), put_op("k")]),
        ];
        for (what, ops) in cases {
            assert_eq!(refusal(client.txn(Txn::new().and_then(ops.clone())).await), duplicate(), "{what}");
            let untaken = Txn::new().or_else(ops);
            assert_eq!(refusal(client.txn(untaken).await), duplicate(), "{what}, in a branch not taken");
        }
        assert_eq!(client.get("k", None).await.unwrap().count(), 0, "nothing was done");
    }

    async fn what_cannot_collide_is_not_refused(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        for ops in [
            vec![delete_prefix("k/"), delete_prefix("k/")],
            vec![TxnOp::get("k", None), put_op("k"), TxnOp::get("k", None)],
            vec![nested(vec![put_op("k")], vec![put_op("k")])],
            vec![put_op("k"), delete_prefix("k/")],
        ] {
            client.txn(Txn::new().and_then(ops)).await.unwrap();
        }
        let branches = Txn::new().and_then([put_op("k")]).or_else([put_op("k")]);
        client.txn(branches).await.unwrap();
    }

    async fn a_bad_operation_refuses_the_whole_branch_but_only_if_taken(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let revision = put(&mut client, "k", "v").await;
        let on_lease = || TxnOp::put("leased", "", Some(PutOptions::new().with_lease(4711)));
        let ahead = || TxnOp::get("k", Some(GetOptions::new().with_revision(revision + 10)));
        let kept = || TxnOp::put("none", "", Some(PutOptions::new().with_ignore_value()));
        let both = || TxnOp::put("none", "", Some(PutOptions::new().with_ignore_value().with_lease(4711)));
        let lease = refused(Code::NotFound, "etcdserver: requested lease not found");
        let future = refused(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
        let missing = refused(Code::InvalidArgument, "etcdserver: key not found");
        // Here the key comes before the lease; in a put of its own the lease comes first.
        let cases = [(on_lease(), lease), (ahead(), future), (kept(), missing.clone()), (both(), missing)];
        for (op, expected) in cases {
            let taken = Txn::new().and_then([put_op("other"), op.clone()]);
            assert_eq!(refusal(client.txn(taken).await), expected);
            client.txn(Txn::new().or_else([op])).await.unwrap();
        }
        assert_eq!(client.get("other", None).await.unwrap().count(), 0, "nothing of a refused one is done");
        assert_eq!(client.get("k", None).await.unwrap().header().unwrap().revision(), revision);
    }

    async fn operations_and_compares_without_a_key_are_refused(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let text = refused(Code::InvalidArgument, "etcdserver: key is not provided");
        let empty = Compare::version("", CompareOp::Equal, 0);
        assert_eq!(refusal(client.txn(Txn::new().when([empty])).await), text);
        assert_eq!(refusal(client.txn(Txn::new().and_then([put_op("")])).await), text);
        assert_eq!(refusal(client.txn(Txn::new().or_else([TxnOp::delete("", None)])).await), text);
    }
}
