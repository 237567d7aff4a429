//! The rules of etcd's API that our code or etcdctl relies on: one suite, held by the embedded etcd and by real
//! ones alike: 3.4, a current 3.5, and 3.5.1, which is known for its faults and never owed. Where real versions differ, the
//! law says so.
//!
//! What is relied on, by whom, and where it is held:
//!
//! | who | relies on | laws in |
//! |---|---|---|
//! | `catalog/wire.rs`, `session/lists.rs` | ranges by end, limit, revision, `keys_only`, `count_only`; `more`; the header's revision | `ranges`, `relied` |
//! | `catalog/session.rs` | what is compacted or ahead is refused as such; an anchor stays readable | `ranges`, `watch_refusals`, `relied` |
//! | `catalog/stream.rs`, `etcd/watch.rs` | ids of ours, prefixes, start revisions, fragments, whole revisions, progress, refusals that spare siblings, ends by compaction | `watches`, `watch_refusals`, `tokens`, `relied` |
//! | `registrar/execute.rs`, `ownership.rs` | `mod_revision` compared (0: absent), one put and one delete at one revision, the other branch's reads | `transactions`, `relied` |
//! | `registrar/lease.rs`, `etcd/keepalive.rs` | lease ids of ours, the floor of TTLs, many leases on one stream, TTL 0 for a lost one, keys that end with it, a full TTL after a restart | `leases` |
//! | `etcd/client.rs`, `transport.rs` | `hasleader`, who answers, sizes | `members`, `limits`, `relied`; without a leader: `embedded-etcd/tests/it/hooks.rs` |
//! | `etcd/token.rs` | every way in which a token is refused, and who may do what to keys, watches and leases | `users`, `tokens` |
//! | `etcd/error.rs` | texts and codes | each law that ends in a refusal; `upkeep` for want of space |
//! | `etcdctl` of 3.4 and 3.5 | its own commands | `etcdctl` |

#![allow(clippy::print_stdout, reason = "measured times belong in a test's output")]

/// As [`svc_tests::etcd_tests!`], with a third real judge: `name::etcd_3_5_1`.
macro_rules! laws {
    ($($(#[$meta:meta])* async fn $name:ident($etcd:ident: $type:ty) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "a law may need nothing from around it")]
            use super::*;
            use svc_tests::etcd as etcds;

            async fn law($etcd: $type) $body

            #[test]
            fn embedded() {
                etcds::run(etcds::Kind::Embedded, &Default::default(), law);
            }

            #[test]
            fn etcd_3_4() {
                etcds::run(etcds::Kind::Etcd34, &Default::default(), law);
            }

            #[test]
            fn etcd_3_5() {
                etcds::run(etcds::Kind::Etcd35, &Default::default(), law);
            }

            #[test]
            fn etcd_3_5_1() {
                etcds::run(etcds::Kind::Etcd351, &Default::default(), law);
            }
        }
    )*};
}

mod etcdctl;
mod fleet;
mod keys;
mod leases;
mod limits;
mod members;
mod ranges;
mod relied;
mod support;
mod tokens;
mod transactions;
mod upkeep;
mod users;
mod watch_refusals;
mod watches;
