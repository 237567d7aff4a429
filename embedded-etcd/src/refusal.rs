//! Every error that etcd answers with, in etcd's own words and codes.
//!
//! Clients match on these texts, so they are etcd's to the letter
//! (`api/v3rpc/rpctypes/error.go`), and the conformance suite holds them against real ones.

use tonic::{Code, Status};

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("grpc: received message larger than max ({size} vs. {max})")]
    MessageTooLarge { size: usize, max: usize },
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: request timed out")]
    TimedOut,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    #[error("etcdserver: root user does not exist")]
    RootUserNotExist,
    #[error("etcdserver: root user does not have root role")]
    RootRoleNotExist,
    #[error("etcdserver: user name already exists")]
    UserAlreadyExist,
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    #[error("etcdserver: user name not found")]
    UserNotFound,
    #[error("etcdserver: role name already exists")]
    RoleAlreadyExist,
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    #[error("embedded etcd: bcrypt refuses this password; take one without NUL bytes")]
    BadPassword,
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    #[error("auth: permission denied")]
    NotRoot,
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    #[error("etcdserver: invalid auth token")]
    InvalidAuthToken,
    #[error("etcdserver: invalid auth management")]
    InvalidAuthMgmt,
    #[error("etcdserver: revision of auth store is old")]
    AuthOldRevision,
    #[error("embedded etcd: {0} is not supported; use a real etcd for it")]
    Unsupported(&'static str),
}

impl Refusal {
    fn code(&self) -> Code {
        match self {
            Refusal::EmptyKey
            | Refusal::KeyNotFound
            | Refusal::ValueProvided
            | Refusal::LeaseProvided
            | Refusal::TooManyOps
            | Refusal::DuplicateKey
            | Refusal::RequestTooLarge
            | Refusal::UserEmpty
            | Refusal::RoleEmpty
            | Refusal::AuthFailed
            | Refusal::BadPassword
            | Refusal::PermissionNotGiven
            | Refusal::InvalidAuthMgmt
            | Refusal::AuthOldRevision => Code::InvalidArgument,
            Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => Code::OutOfRange,
            Refusal::LeaseNotFound => Code::NotFound,
            Refusal::LeaseExists
            | Refusal::AuthNotEnabled
            | Refusal::RootUserNotExist
            | Refusal::RootRoleNotExist
            | Refusal::UserAlreadyExist
            | Refusal::UserNotFound
            | Refusal::RoleAlreadyExist
            | Refusal::RoleNotFound
            | Refusal::RoleNotGranted
            | Refusal::PermissionNotGranted => Code::FailedPrecondition,
            Refusal::PermissionDenied => Code::PermissionDenied,
            Refusal::InvalidAuthToken => Code::Unauthenticated,
            // Those that etcd forgot to give a code.
            Refusal::NoPasswordUser | Refusal::NotRoot => Code::Unknown,
            Refusal::MessageTooLarge { .. } | Refusal::NoSpace => Code::ResourceExhausted,
            Refusal::NoLeader | Refusal::TimedOut | Refusal::Stopped => Code::Unavailable,
            Refusal::Unsupported(_) => Code::Unimplemented,
        }
    }
}

impl Refusal {
    /// How Go prints a status: the reason that etcd gives for a watch which may not be.
    pub(crate) fn in_go(&self) -> String {
        format!("rpc error: code = {:?} desc = {self}", self.code())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::new(refusal.code(), refusal.to_string())
    }
}
