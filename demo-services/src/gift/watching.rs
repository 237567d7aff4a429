//! `WatchGifts`: an inbox from a position on, page by page, and then what comes.

use std::collections::VecDeque;

use futures_util::stream::{self, BoxStream, StreamExt};
use svc_proto::gift::v1::WatchGiftsResponse;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::courier::Courier;
use super::hub::Waiter;
use super::store::Received;

/// How many gifts are read at a time: what one watch holds at most.
const PAGE: u32 = 100;

struct Watching {
    courier: Courier,
    stopping: CancellationToken,
    waiter: Waiter,
    uid: i64,
    /// The last position that was read.
    read: i64,
    page: VecDeque<Received>,
}

/// Watches a user's gifts behind `after`, or from now on.
///
/// # Errors
/// Too many watch; `after` lies ahead of the inbox; the database is away.
pub(super) async fn watch(
    courier: Courier,
    stopping: CancellationToken,
    uid: i64,
    after: Option<i64>,
) -> Result<BoxStream<'static, Result<WatchGiftsResponse, Status>>, Status> {
    let too_many = || Status::resource_exhausted("too many watches are open here; try again later");
    let waiter = courier.hub().wait(uid).ok_or_else(too_many)?;
    let newest = courier.store().position(uid).await?;
    let read = match after {
        Some(after) if after > newest => {
            return Err(Status::out_of_range(format!(
                "after: user {uid} has received nothing at {after}; the newest position is {newest}"
            )));
        }
        after => after.unwrap_or(newest),
    };
    courier.hub().tell(uid, newest);
    let watching = Watching { courier, stopping, waiter, uid, read, page: VecDeque::new() };
    // The caller's reading drives this: what it does not read is not fetched.
    let gifts = stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(gift) => Some((Ok(gift), Some(watching))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(gifts.boxed())
}

impl Watching {
    /// The next gift, once there is one.
    async fn next(&mut self) -> Result<WatchGiftsResponse, Status> {
        loop {
            while let Some(received) = self.page.pop_front() {
                if !received.is_taken_back {
                    return Ok(super::answer::received(received));
                }
            }
            tokio::select! {
                // What is there already is told before the end.
                biased;
                () = self.waiter.beyond(self.read) => {}
                () = self.stopping.cancelled() => {
                    let why = format!("this instance stops; go on behind position {} elsewhere", self.read);
                    return Err(Status::unavailable(why));
                }
            }
            self.page = self.courier.store().received(self.uid, self.read, PAGE).await?.into();
            match self.page.back() {
                Some(newest) => self.read = newest.position,
                // Somebody has put the database back to an older state: to look again at once would not help.
                None => return Err(Status::unavailable("the inbox is not what it was; begin again")),
            }
        }
    }
}
