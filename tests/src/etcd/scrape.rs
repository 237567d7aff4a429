//! What a real etcd counts, from its page of metrics.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The sum of the metrics of the etcd at `address` (`host:port`) whose lines begin so.
///
/// # Errors
/// When it cannot be reached.
pub async fn counted(address: &str, line: &str) -> io::Result<f64> {
    let mut page = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    page.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    page.read_to_string(&mut answer).await?;
    let lines = answer.lines().filter(|found| found.starts_with(line));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
