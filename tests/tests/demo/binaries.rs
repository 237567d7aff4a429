//! Where the binaries of other crates lie. `cargo test --workspace` has built them, since their own crates' tests run
//! them; a test of this crate alone builds them first.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The folder that holds `svcctl` and the services.
pub(crate) fn folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            // .../debug/deps/demo-0123456789abcdef
            let own = std::env::current_exe().expect("we run");
            let folder = own.ancestors().nth(2).expect("cargo's folders").to_path_buf();
            let there = |name: &str| folder.join(name).is_file();
            if !["svcctl", "greeter", "greeter-load", "balance", "gift", "edge", "edge-load"]
                .into_iter()
                .all(there)
            {
                let built = Command::new(env!("CARGO"))
                    .args(["build", "--quiet", "--bins", "-p", "svcctl", "-p", "demo-services"])
                    .status()
                    .expect("cargo runs");
                assert!(built.success(), "the binaries cannot be built");
            }
            folder
        })
        .clone()
}
