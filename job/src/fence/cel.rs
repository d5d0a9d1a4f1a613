//! Pieces of CEL that the fence's conditions are made of. Whatever may be absent is asked for with
//! `?`: a condition that fails refuses its request (`failurePolicy: Fail`).

use std::collections::{BTreeMap, BTreeSet};

/// The object that a request is about: DELETE has only an old one, CREATE only a new one. Names
/// are read from it, for `request.name` is empty in a deletion by selector and where the API
/// server makes the name up.
pub const NAME: &str = "(object != null ? object : oldObject).metadata.?name.orValue('')";

/// What a CEL expression may hold in the API server, less what stands around the names.
const NAMES_LIMIT: usize = 90_000;

/// A list of strings. Names of Kubernetes objects need no escaping.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("'{n}'")).collect();
    format!("[{}]", names.join(", "))
}

/// Those names that belong to the request's namespace; none if they are too many for an
/// expression: then only the webhook can tell.
pub fn of_namespace(names: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let entries: Vec<String> = names
        .iter()
        .map(|(namespace, names)| {
            format!("'{namespace}': {}", list(names.iter().map(String::as_str)))
        })
        .collect();
    let names = format!("{{{}}}[?request.namespace].orValue([])", entries.join(", "));
    (names.len() <= NAMES_LIMIT).then_some(names)
}

/// Whether one of the names (a CEL list) is one of those.
pub fn any_of(names: &str, those: Option<&str>) -> String {
    match those {
        Some(those) => format!("{names}.exists(n, n in {those})"),
        None => "true".into(),
    }
}

/// Whether the value at this path is another than it was.
pub fn differs(path: &str) -> String {
    format!("object.{path}.orValue('') != oldObject.{path}.orValue('')")
}

pub fn annotation(key: &str) -> String {
    format!("metadata.?annotations[?'{key}']")
}

pub fn label(key: &str) -> String {
    format!("metadata.?labels[?'{key}']")
}

/// Whether one of these is true.
pub fn any(expressions: impl IntoIterator<Item = String>) -> String {
    expressions.into_iter().collect::<Vec<_>>().join(" || ")
}

/// Whether a workload gets more replicas than it had. Absent, they are 1 in a workload, and 0 in
/// a Scale, which leaves out its zero.
pub fn replicas_up() -> String {
    let replicas = |object: &str| {
        format!(
            "{object}.?spec.?replicas.orValue(request.?subResource.orValue('') == 'scale' ? 0 : 1)"
        )
    };
    format!("{} > {}", replicas("object"), replicas("oldObject"))
}
