//! `split`, an extension of ours: `[{"match": {"version": "v2"}, "percent": 5}]`. Strict in all, names of fields
//! included: nobody but us writes it, and a misspelt canary must not go unnoticed.

use std::collections::BTreeMap;

use super::error::Result;
use super::path::Place;
use crate::policy::split::Rule;

pub(super) fn split(list: &Place<'_>) -> Result<Vec<Rule>> {
    let mut sum = 0.0;
    list.items()?
        .iter()
        .map(|item| {
            let rule = rule(item)?;
            sum += rule.percent;
            // Decimal fractions do not sum up exactly.
            if sum > 100.0 + 1e-6 {
                return item.required("percent")?.refuse("the percents of a split sum up to at most 100");
            }
            Ok(rule)
        })
        .collect()
}

fn rule(place: &Place<'_>) -> Result<Rule> {
    place.only(&["match", "percent"])?;
    let matches = place.required("match")?;
    let percent = place.required("percent")?;
    let rule = Rule {
        matches: matches
            .entries()?
            .into_iter()
            .map(|(name, value)| Ok((name.to_owned(), value.text()?.to_owned())))
            .collect::<Result<BTreeMap<_, _>>>()?,
        percent: percent.number()?,
    };
    if rule.matches.is_empty() {
        return matches.refuse("at least one tag is wanted here, such as {\"version\": \"v2\"}");
    }
    if !(0.0..=100.0).contains(&rule.percent) {
        return percent.refuse("a number from 0 to 100 is wanted here");
    }
    Ok(rule)
}
