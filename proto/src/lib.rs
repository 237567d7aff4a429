//! The protocols of the demo services, and the code that is generated from them.
//!
//! Comes in: the `.proto` files beside this crate, one folder for each package and version. Goes out: for each a
//! module with its messages, a client and a server, and [`FILE_DESCRIPTOR_SET`] for gRPC reflection.
//!
//! ```
//! use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};
//!
//! let request = HelloRequest { name: "ada".into() };
//! assert_eq!(request.name, "ada");
//! # let _ = |channel: tonic::transport::Channel| GreeterClient::new(channel);
//! ```

/// The coins, by version.
pub mod balance {
    /// `balance.v1`: a ledger whose calls may all be repeated.
    pub mod v1 {
        tonic::include_proto!("balance.v1");
    }
}

/// The gifts, by version.
pub mod gift {
    /// `gift.v1`: one gift to many receivers, paid for through `balance.v1`.
    pub mod v1 {
        tonic::include_proto!("gift.v1");
    }
}

/// The greeter, by version.
pub mod greeter {
    /// `greeter.v1`: all four kinds of call; every answer names the instance that gave it.
    pub mod v1 {
        tonic::include_proto!("greeter.v1");
    }
}

/// `helloworld`: the first example of every gRPC project, for stock clients in any language.
pub mod helloworld {
    tonic::include_proto!("helloworld");
}

/// All of the above as an encoded `google.protobuf.FileDescriptorSet`: what a reflection service answers from.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
