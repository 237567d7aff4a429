//! Compiles the protocol of the interop tests with protox, a compiler in Rust, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

/// Relative to this crate's `proto` folder; the folder names the package.
const FILE: &str = "grpc/testing/test.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/{FILE}");
    let files = protox::compile([FILE], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Other languages read the protocol from here, without a compiler of their own.
    std::fs::write(out.join("grpc_testing.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
