//! What a rule reads of a request.

use std::collections::BTreeMap;

use kube::core::Object;
use kube::core::admission::AdmissionRequest;
use pvmigrate_record::names;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// An object under review. Its spec is read by the rule that needs it: what is none of ours may
/// look as it likes.
pub type Reviewed = Object<Option<Box<RawValue>>, IgnoredAny>;
pub type Request = AdmissionRequest<Reviewed>;

/// Why there is no verdict: the answer is an error then, which refuses.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the review has no {0}")]
    Missing(&'static str),
    #[error("the review's object cannot be read: {0}")]
    Spec(#[from] serde_json::Error),
}

/// The object as it shall be.
pub fn object(request: &Request) -> Result<&Reviewed, Unreadable> {
    let object = request.object.as_ref();
    object.ok_or(Unreadable::Missing("object"))
}

/// The object as it is.
pub fn old_object(request: &Request) -> Result<&Reviewed, Unreadable> {
    let object = request.old_object.as_ref();
    object.ok_or(Unreadable::Missing("oldObject"))
}

/// An object's spec, or the part of it that a rule names. An absent one is like an empty one.
pub fn spec<'a, T: Deserialize<'a>>(object: &'a Reviewed) -> Result<T, Unreadable> {
    let json = object.spec.as_ref().map_or("{}", |spec| spec.get());
    Ok(serde_json::from_str(json)?)
}

/// The names that a request is about. Its own `name` is empty where the server makes one up, and
/// for `deletecollection`: the objects have it by then. There is always one.
pub fn names(request: &Request) -> Result<Vec<&str>, Unreadable> {
    let objects = [&request.object, &request.old_object].into_iter().flatten();
    let mut names: Vec<&str> = std::iter::once(request.name.as_str())
        .chain(objects.filter_map(|object| object.metadata.name.as_deref()))
        .filter(|name| !name.is_empty())
        .collect();
    names.dedup();
    if names.is_empty() {
        return Err(Unreadable::Missing("name"));
    }
    Ok(names)
}

/// The namespace of what a request is about; empty if it has none.
pub fn namespace(request: &Request) -> &str {
    request.namespace.as_deref().unwrap_or_default()
}

/// The first of our marks that a request adds, changes or drops.
pub fn changed_mark(request: &Request) -> Result<Option<String>, Unreadable> {
    let (before, after) = (old_object(request)?, object(request)?);
    let changed = |kind: &str, before: Marks, after: Marks| {
        let value = |of: Marks, mark: &str| of.as_ref().and_then(|all| all.get(mark).cloned());
        let mut marks = names::MARKS.into_iter();
        let mark = marks.find(|mark| value(before, mark) != value(after, mark));
        mark.map(|mark| format!("{kind} {mark}"))
    };
    let (before, after) = (&before.metadata, &after.metadata);
    let annotation = changed("annotation", &before.annotations, &after.annotations);
    Ok(annotation.or_else(|| changed("label", &before.labels, &after.labels)))
}

type Marks<'a> = &'a Option<BTreeMap<String, String>>;
