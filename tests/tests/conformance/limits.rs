//! Sizes: what is too large, and how that is said.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::support::{refusal, refused};

laws! {
    async fn a_write_above_a_megabyte_and_a_half_is_refused(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let too_large = refused(Code::InvalidArgument, "etcdserver: request is too large");
        client.put("k", vec![b'v'; 1_500_000], None).await.unwrap();
        assert_eq!(refusal(client.put("k", vec![b'v'; 1_600_000], None).await), too_large);
        let txn = Txn::new().and_then([TxnOp::put("k", vec![b'v'; 1_600_000], None)]);
        assert_eq!(refusal(client.txn(txn).await), too_large);
        assert_eq!(client.get("k", None).await.unwrap().kvs()[0].value().len(), 1_500_000);
    }

    async fn a_message_above_two_megabytes_is_refused_by_the_transport(etcd: TestEtcd) {
        let answer = etcd.client().await.put("k", vec![b'v'; 2_200_000], None).await;
        // The message adds a tag and a length to the key and to the value.
        let text = "grpc: received message larger than max (2200008 vs. 2097152)";
        // 3.5 words it "trying to send message larger than max" only on the client's side.
        assert_eq!(refusal(answer), refused(Code::ResourceExhausted, text));
    }

    async fn a_transaction_has_at_most_128_operations(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let puts = |count: usize| -> Vec<TxnOp> { (0..count).map(|i| TxnOp::put(format!("k{i}"), "", None)).collect() };
        let too_many = refused(Code::InvalidArgument, "etcdserver: too many operations in txn request");
        client.txn(Txn::new().and_then(puts(128))).await.unwrap();
        assert_eq!(refusal(client.txn(Txn::new().and_then(puts(129))).await), too_many);
        assert_eq!(refusal(client.txn(Txn::new().or_else(puts(129))).await), too_many, "the other branch counts");
        let compares: Vec<_> = (0..129).map(|i| Compare::version(format!("k{i}"), CompareOp::Equal, 0)).collect();
        assert_eq!(refusal(client.txn(Txn::new().when(compares)).await), too_many);
        let nested = Txn::new().and_then([TxnOp::txn(Txn::new().and_then(puts(128)))]);
        assert_eq!(refusal(client.txn(nested).await), too_many, "the outer ones are used up");
        client.txn(Txn::new().and_then([TxnOp::txn(Txn::new().and_then(puts(127)))])).await.unwrap();
    }
}
