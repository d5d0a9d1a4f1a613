//! A query of labels, as kubectl's `--selector` and every list of the API read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use kube::core::{Expression, Selector, SelectorExt};

/// A query that was read; shown as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelQuery {
    text: String,
    selector: Selector,
}

impl LabelQuery {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }
}

impl fmt::Display for LabelQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for LabelQuery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = parts(text)?;
        let expressions = parts
            .iter()
            .map(|part| expression(part))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            text: parts.join(","),
            selector: expressions.into_iter().collect(),
        })
    }
}

/// At the commas that are not between parentheses.
fn parts(text: &str) -> Result<Vec<String>, String> {
    let mut all = vec![String::new()];
    let mut is_inside = false;
    for character in text.chars() {
        match character {
            '(' if !is_inside => is_inside = true,
            ')' if is_inside => is_inside = false,
            '(' | ')' => return Err(format!("a parenthesis of {text:?} has no other")),
            ',' if !is_inside => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = all.last_mut() {
            last.push(character);
        }
    }
    if is_inside {
        return Err(format!("a parenthesis of {text:?} has no other"));
    }
    Ok(all.iter().map(|part| part.trim().to_string()).collect())
}

fn expression(part: &str) -> Result<Expression, String> {
    if let Some(list) = part.strip_suffix(')')
        && let Some((head, list)) = list.split_once('(')
    {
        let values: BTreeSet<String> = list.split(',').map(|v| v.trim().to_string()).collect();
        return match head.split_whitespace().collect::<Vec<_>>()[..] {
            [name, "in"] => Ok(Expression::In(key(name)?, values)),
            [name, "notin"] => Ok(Expression::NotIn(key(name)?, values)),
            _ => Err(format!(
                "{part:?} is neither `key in (…)` nor `key notin (…)`"
            )),
        };
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Ok(Expression::NotEqual(key(name)?, value.trim().into()));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Expression::Equal(key(name)?, value.trim().into()));
    }
    match part.strip_prefix('!') {
        Some(name) => Ok(Expression::DoesNotExist(key(name)?)),
        None => Ok(Expression::Exists(key(part)?)),
    }
}

fn key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_known = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.is_empty() || !text.chars().all(is_known) {
        return Err(format!(
            "{text:?} is no label's key; write a query such as app=db,tier in (a,b),!old"
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(query: &str) -> bool {
        let labels = [("app", "db"), ("tier", "a"), ("x.io/y", "1")];
        let labels = labels.map(|(k, v)| (k.into(), v.into())).into();
        query.parse::<LabelQuery>().unwrap().matches(&labels)
    }

    #[test]
    fn queries_are_read_as_kubectl_does() {
        for query in [
            "app=db",
            "app == db",
            "app=db,tier in (a, b)",
            "tier notin (c),!old",
            "x.io/y",
            "old!=x",
            "missing notin (x)",
        ] {
            assert!(matches(query), "{query}");
        }
        for query in [
            "app=web",
            "app!=db",
            "app in (web,x)",
            "old",
            "!app",
            "app=db,old",
        ] {
            assert!(!matches(query), "{query}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused_in_a_sentence() {
        for (query, said) in [
            ("", "no label's key"),
            ("a b", "no label's key"),
            ("app in (a", "has no other"),
            ("app of (a)", "is neither `key in (…)` nor"),
            ("app=db,,x", "no label's key"),
        ] {
            let error = query.parse::<LabelQuery>().unwrap_err();
            assert!(error.contains(said), "{query}: {error}");
        }
    }
}
