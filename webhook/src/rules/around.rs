//! What a migration stands in: its namespaces and the class that it moves to.

use pvmigrate_record::refusal;

use super::Verdict;
use super::review::{self, Request};
use crate::fences::{Fences, Key};

pub(super) fn namespace(request: &Request, fences: &Fences) -> Verdict {
    let mut names = review::names(request)?.into_iter();
    Ok(names.find_map(|name| {
        let of = fences.first(Key::Namespace(name))?;
        Some(refusal::namespace(of, name))
    }))
}

pub(super) fn storage_class(request: &Request, fences: &Fences) -> Verdict {
    let mut names = review::names(request)?.into_iter();
    Ok(names.find_map(|name| {
        let of = fences.first(Key::DestinationClass(name))?;
        Some(refusal::storage_class(of, name))
    }))
}
