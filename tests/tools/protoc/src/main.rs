//! Prints the path of the protoc binary in cargo's own registry cache. etcd-client's build script needs a
//! protoc; this way neither root nor a package manager is needed to have one.
fn main() {
    println!("{}", protoc::protoc_bin_path().display());
}
