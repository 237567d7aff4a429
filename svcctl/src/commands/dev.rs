//! `svcctl dev`: an etcd of one node on a port, until it is told to stop; with a folder it goes on where it ended.

use std::net::SocketAddr;

use embedded_etcd::EmbeddedEtcd;

use crate::cli::Dev;
use crate::context::Cancelled;
use crate::exit::{Exit, Failure};
use crate::output::Printer;

pub(crate) async fn run(
    printer: &mut Printer,
    mut cancelled: Cancelled,
    args: &Dev,
) -> Result<Exit, Failure> {
    let listen: SocketAddr = args.listen.parse().map_err(|_| {
        let message = format!("--listen: {:?} is not IP:PORT, such as 127.0.0.1:2379", args.listen);
        Failure::new(Exit::Usage, message)
    })?;
    let etcd = match &args.data_dir {
        None => EmbeddedEtcd::start().await,
        Some(folder) => EmbeddedEtcd::builder().open(folder).await.map_err(|error| {
            Failure::new(Exit::Other, format!("--data-dir {}: {error}", folder.display()))
        })?,
    };
    let address = etcd.listen(listen).await.map_err(|error| {
        let remedy = "take another with --listen, port 0 for any free one";
        Failure::new(Exit::Other, format!("cannot listen on {listen} ({error}); {remedy}"))
    })?;
    match &args.data_dir {
        None => printer.note(
            "an etcd in memory, for trying things out: nothing is stored, and it ends with this command",
        ),
        Some(folder) => printer.note(&format!(
            "an etcd for trying things out, with its data in {}; in production use a real one",
            folder.display()
        )),
    }
    if address.port() != 2379 || !address.ip().is_loopback() {
        printer.note(&format!("tell others where it is: export ETCDCTL_ENDPOINTS={address}"));
    }
    // The one line on stdout, for scripts that start it on port 0.
    printer.text(&format!("http://{address}"))?;
    cancelled.asked().await;
    etcd.stop().await;
    Ok(Exit::Ok)
}
