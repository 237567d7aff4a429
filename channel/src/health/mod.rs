//! Which of the connected endpoints take calls: a filter before the policy, which is shown healthy ones only.
//! `outlier.rs` judges by what became of calls, `check.rs` asks the server. `orca.rs` reads what servers report of their
//! load, for policies that want it.

pub(crate) mod check;
pub(crate) mod orca;
pub(crate) mod outlier;
