//! Compiles the `.proto` files with protox, a compiler in Rust, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

/// Every file that is compiled, relative to this crate; the folder names the package and its version.
const FILES: [&str; 4] = [
    "balance/v1/balance.proto",
    "gift/v1/gift.proto",
    "greeter/v1/greeter.proto",
    "helloworld/helloworld.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let files = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
