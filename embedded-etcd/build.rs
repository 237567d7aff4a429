//! Compiles what etcd-client does not export of etcd's API, and the records of the data folder, with protox, so
//! that no `protoc` is needed for it.

use std::error::Error;

/// Relative to this crate's `proto` folder; the folder names the version.
const FILES: [&str; 3] = ["etcd/v3/authpb.proto", "etcd/v3/auth.proto", "embedded/v1/journal.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let files = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().build_client(false).compile_fds(files)?;
    Ok(())
}
