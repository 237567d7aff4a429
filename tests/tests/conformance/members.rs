//! Who answers: headers, status, the list of members, authentication.

use etcd_client::{Client, ConnectOptions};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::support::{put, refusal, refused};

laws! {
    async fn every_answer_tells_who_gave_it_and_a_restart_raises_the_term(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = client.get("k", None).await.unwrap().take_header().unwrap();
        assert!(first.cluster_id() != 0 && first.member_id() != 0 && first.raft_term() >= 2, "{first:?}");
        let second = client.put("k", "v", None).await.unwrap().take_header().unwrap();
        assert_eq!((second.cluster_id(), second.member_id()), (first.cluster_id(), first.member_id()));
        assert_eq!((second.revision(), second.raft_term()), (first.revision() + 1, first.raft_term()));
        etcd.kill().await;
        etcd.start().await;
        let third = etcd.client().await.get("k", None).await.unwrap().take_header().unwrap();
        assert_eq!((third.cluster_id(), third.member_id()), (first.cluster_id(), first.member_id()));
        assert!(third.raft_term() > first.raft_term(), "{third:?} after {first:?}");
        assert_eq!(third.revision(), second.revision());
    }

    async fn a_wipe_begins_at_revision_one_in_the_first_term(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = client.get("k", None).await.unwrap().take_header().unwrap();
        put(&mut client, "k", "v").await;
        etcd.wipe().await;
        etcd.start().await;
        let wiped = etcd.client().await.get("k", None).await.unwrap().take_header().unwrap();
        assert_eq!((wiped.revision(), wiped.raft_term()), (1, first.raft_term()));
    }

    async fn the_status_and_the_members_agree(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let revision = put(&mut client, "k", "v").await;
        let status = client.status().await.unwrap();
        let header = status.header().unwrap();
        assert_eq!(header.revision(), revision);
        assert_eq!(status.leader(), header.member_id(), "alone it leads");
        assert!(status.version().starts_with("3."), "{}", status.version());
        assert!(status.errors().is_empty() && !status.is_learner() && status.db_size() > 0);
        assert_eq!(status.raft_term(), header.raft_term());
        let members = client.member_list().await.unwrap();
        let [member] = members.members() else { panic!("one member, not {members:?}") };
        assert_eq!((member.id(), member.is_learner()), (header.member_id(), false));
        assert!(!member.name().is_empty());
        assert_eq!(member.client_urls(), [etcd.url()]);
        assert_eq!(members.header().unwrap().cluster_id(), header.cluster_id());
    }

    async fn who_logs_in_without_need_is_told(etcd: TestEtcd) {
        let options = ConnectOptions::new().with_user("root", "secret");
        let answer = Client::connect([etcd.url()], Some(options)).await.map(|_| ());
        assert_eq!(refusal(answer), refused(Code::FailedPrecondition, "etcdserver: authentication is not enabled"));
    }
}
