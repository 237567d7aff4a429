//! Requests that cannot be served: INVALID_ARGUMENT that names each wrong field, in its message for people and as
//! `google.rpc.BadRequest` in its details for programs.

use std::fmt::Display;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// The fields of one request, as they are looked at.
///
/// ```
/// # use demo_services::validate::Fields;
/// let (coin, to_uid) = (0, 7);
/// let mut fields = Fields::new();
/// fields.check("coin", coin > 0, format_args!("must be above 0, is {coin}"));
/// fields.check("to_uid", to_uid != 0, "is missing");
/// assert_eq!(fields.done().unwrap_err().message(), "coin must be above 0, is 0");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "what is wrong is told by `done`"]
pub struct Fields(Vec<FieldViolation>);

impl Fields {
    /// Nothing is wrong yet.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// Sets down that this field is wrong unless it is `right`. A field of a list is `to_uids[2]`.
    pub fn check(&mut self, field: impl Into<String>, right: bool, why: impl Display) {
        if !right {
            self.0.push(FieldViolation::new(field, why.to_string()));
        }
    }

    /// Ends the looking.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if any field is wrong.
    pub fn done(self) -> Result<(), Status> {
        if self.0.is_empty() {
            return Ok(());
        }
        let each: Vec<String> =
            self.0.iter().map(|wrong| format!("{} {}", wrong.field, wrong.description)).collect();
        let details = ErrorDetails::with_bad_request(self.0);
        Err(Status::with_error_details(Code::InvalidArgument, each.join("; "), details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named_for_people_and_for_programs() {
        let mut fields = Fields::new();
        fields.check("coin", false, "must be above 0");
        fields.check("from_uid", true, "is missing");
        fields.check("to_uids[1]", false, "is missing");
        let status = fields.done().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "coin must be above 0; to_uids[1] is missing");
        let details = status.get_details_bad_request().expect("they are there");
        let named: Vec<&str> = details.field_violations.iter().map(|wrong| wrong.field.as_str()).collect();
        assert_eq!(named, ["coin", "to_uids[1]"]);
        assert!(Fields::new().done().is_ok());
    }
}
