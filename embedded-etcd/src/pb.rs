//! The generated code of this crate's own protos: what etcd-client does not export of etcd's API,
//! and the records of the data folder.
#![allow(unreachable_pub, missing_docs, clippy::large_futures, reason = "generated code")]

pub(crate) mod authpb {
    tonic::include_proto!("authpb");
}

pub(crate) mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

mod embedded {
    pub(crate) mod v1 {
        tonic::include_proto!("embedded.v1");
    }
}

pub(crate) use embedded::v1 as journal;

impl From<etcd_client::proto::PbResponseHeader> for etcdserverpb::ResponseHeader {
    fn from(header: etcd_client::proto::PbResponseHeader) -> Self {
        let etcd_client::proto::PbResponseHeader { cluster_id, member_id, revision, raft_term } = header;
        Self { cluster_id, member_id, revision, raft_term }
    }
}
