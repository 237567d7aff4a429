//! The gRPC project's core interop cases (`doc/interop-test-descriptions.md` in grpc/grpc) on our channel, each against
//! a tonic server and against Python's grpcio, which share no code with each other.
//!
//! `cases.rs` has a function a case; `peer.rs` is the server of either kind, `tonic_peer.rs` and `server.py` what it runs.

mod cases;
mod peer;
mod tonic_peer;

/// The protocol, from `tests/proto`.
#[allow(unreachable_pub, missing_docs, reason = "it is generated as for a public module")]
mod testing {
    tonic::include_proto!("grpc.testing");
}

/// Makes, of each case, a test for each peer.
macro_rules! on_each_peer {
    ($($case:ident)*) => {
        mod tonic_server {
            $(#[test]
            fn $case() {
                crate::peer::run(crate::peer::Kind::Tonic, async |channel, peer| crate::cases::$case(channel, peer).await);
            })*
        }

        mod python_server {
            $(#[test]
            fn $case() {
                crate::peer::run(crate::peer::Kind::Grpcio, async |channel, peer| crate::cases::$case(channel, peer).await);
            })*
        }
    };
}

on_each_peer! {
    empty_unary
    large_unary
    client_streaming
    server_streaming
    ping_pong
    empty_stream
    timeout_on_sleeping_server
    cancel_after_begin
    cancel_after_first_response
    status_code_and_message
    special_status_message
    unimplemented_method
    unimplemented_service
    custom_metadata
}
