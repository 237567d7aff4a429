//! Pages of transactions: how long, and where the next one goes on.
//!
//! A token is where a page ended and whose it was, so that nobody's token is taken for somebody else's. It says nothing
//! that its holder may not know, and is not kept anywhere.

use svc_proto::balance::v1::ListTransactionsRequest;
use tonic::Status;

use super::ledger::{Transaction, Uid};
use super::request::uid;
use crate::validate::Fields;

/// The length of a page that nobody asked for.
const DEFAULT: usize = 50;

/// The longest page; more are given as so many (AIP-158).
const LONGEST: usize = 1000;

/// A page that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Whose.
    pub(super) uid: Uid,
    /// How many at most.
    pub(super) size: usize,
    /// Only what is older than this.
    pub(super) before: Option<i64>,
}

impl Page {
    /// As it was asked for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming the field.
    pub(super) fn new(request: &ListTransactionsRequest) -> Result<Page, Status> {
        let uid = uid(request.uid)?;
        let ListTransactionsRequest { page_size, page_token, .. } = request;
        let size = usize::try_from(*page_size);
        let before = read(page_token, uid);
        let known = page_token.is_empty() || before.is_some();
        let mut fields = Fields::new();
        fields.check("page_size", size.is_ok(), format_args!("must not be negative, is {page_size}"));
        fields.check("page_token", known, "is none of this user's pages");
        fields.done()?;
        let size = match size.unwrap_or_default() {
            0 => DEFAULT,
            size => size.min(LONGEST),
        };
        Ok(Page { uid, size, before })
    }

    /// What the next page is asked for with, if one more than the page was `found`; that one is taken away.
    pub(super) fn next(self, found: &mut Vec<Transaction>) -> String {
        if found.len() <= self.size {
            return String::new();
        }
        found.truncate(self.size);
        found.last().map_or_else(String::new, |last| format!("{:x}-{:x}", self.uid.get(), last.seq))
    }
}

fn read(token: &str, uid: Uid) -> Option<i64> {
    let (whose, before) = token.split_once('-')?;
    let number = |text| i64::from_str_radix(text, 16).ok().filter(|&number| number > 0);
    (number(whose)? == uid.get()).then_some(())?;
    number(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uid: i64, page_size: i32, page_token: &str) -> Result<Page, Status> {
        Page::new(&ListTransactionsRequest { uid, page_size, page_token: page_token.to_owned() })
    }

    #[test]
    fn a_page_has_the_length_asked_for_within_limits() {
        for (asked_for, given) in [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
            assert_eq!(asked(7, asked_for, "").unwrap().size, given);
        }
        let status = asked(7, -1, "").unwrap_err();
        assert!(status.message().starts_with("page_size"), "{status}");
    }

    #[test]
    fn a_token_is_good_for_its_user_only() {
        assert_eq!(asked(7, 0, "7-1f").unwrap().before, Some(31));
        for token in ["8-1f", "7", "7-", "-1f", "7-0", "7--1", "7-1g", "7-1f-2", "7-ffffffffffffffffff", "\0"]
        {
            let status = asked(7, 0, token).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{token:?}");
            assert!(status.message().starts_with("page_token"), "{token:?}: {status}");
        }
    }
}
