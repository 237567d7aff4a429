//! What `make tools` has put beside the build, and what a test does where something of it is missing.

use std::path::{Path, PathBuf};

/// The folder that `make tools` fills: `SVC_TOOLS`, or `tools` in the target folder.
pub fn folder() -> PathBuf {
    if let Some(tools) = std::env::var_os("SVC_TOOLS") {
        return tools.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    target.unwrap_or_else(|| workspace.join("target")).join("tools")
}

/// Says what this run cannot test, and why.
///
/// # Panics
/// With `CI=true`: there everything is owed.
pub fn missing(remedy: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{remedy}");
    eprintln!("not tested: {remedy}");
}
