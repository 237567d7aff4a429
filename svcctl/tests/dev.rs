//! `svcctl dev --data-dir`: killed and started again, it has what it was told.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running `svcctl dev`; killed when it is dropped.
struct Dev {
    child: Child,
    url: String,
}

impl Dev {
    fn start(folder: &Path) -> Dev {
        let mut child = Command::new(env!("CARGO_BIN_EXE_svcctl"))
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut url = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut url).expect("it says where it listens");
        Dev { child, url: url.trim_end().to_owned() }
    }

    async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.url], None).await.expect("it is up")
    }

    fn kill(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn what_was_written_outlives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(&folder.path().join("made"));
    let mut client = dev.client().await;
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    for i in 0..100 {
        let options = etcd_client::PutOptions::new().with_lease(lease);
        client.put(format!("k/{i}"), "v", Some(options)).await.expect("a put");
    }
    dev.kill();

    let again = Dev::start(&folder.path().join("made"));
    let mut client = again.client().await;
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    assert_eq!(
        client.get("k/", Some(options)).await.expect("an answer").count(),
        100,
        "all that was answered"
    );
    client.lease_revoke(lease).await.expect("its lease");

    let second = Command::new(env!("CARGO_BIN_EXE_svcctl"))
        .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("made"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && text.contains("another process has this data folder"), "{text}");
}
