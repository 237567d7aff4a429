//! Sending a call again: `processed.rs` says whether that is safe without leave, `retry.rs` and `hedge.rs` whether the
//! service config gives leave, `throttle.rs` when that ends for all, `pushback.rs` what the server says of it; `replay.rs`
//! keeps what is to be sent, as far as `budget.rs` has room.

pub(crate) mod budget;
pub(crate) mod hedge;
pub(crate) mod processed;
mod pushback;
pub(crate) mod replay;
pub(crate) mod retry;
pub(crate) mod throttle;
