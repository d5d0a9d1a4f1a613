//! Making the destination the default StorageClass once everything is moved, so that new claims
//! do not come to the class that was left.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use serde_json::json;

use crate::cluster::Cluster;
use crate::config::{Config, SetDefault};
use crate::stop::Stop;

/// What marks the default class. The older one still counts where it is there.
const MARK: &str = "storageclass.kubernetes.io/is-default-class";
const OLDER_MARK: &str = "storageclass.beta.kubernetes.io/is-default-class";

/// What is to be done about the default class.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    /// Classes that become it and that no longer are it, in the order of the writes: with two of
    /// them the API server takes the newer class, with none it takes none.
    marks: Vec<(String, bool)>,
    /// Classes that are the default and are left so.
    others: Vec<String>,
}

/// Does what was asked for; false if it may not, which is said. May be repeated.
pub async fn set(cluster: &Cluster, config: &Config) -> Result<bool, Stop> {
    if config.set_default == SetDefault::False {
        return Ok(true);
    }
    let api = cluster.all::<StorageClass>();
    let classes = cluster.list(&api).await?;
    let change = change(&classes, config);
    for other in &change.others {
        tracing::warn!(class = %other, "another StorageClass is the default, and stays it; setDefault: force would move that");
    }
    for (name, wanted) in &change.marks {
        let Some(class) = classes.iter().find(|class| class.name_any() == *name) else {
            continue;
        };
        let marked = cluster
            .update(&api, class.clone(), |class| {
                Ok((is_default(class) != *wanted).then(|| patch(class, *wanted)))
            })
            .await;
        match marked {
            Ok(_) if *wanted => tracing::info!(class = %name, "is the default StorageClass now"),
            Ok(_) => tracing::info!(class = %name, "is no longer the default StorageClass"),
            Err(Stop::Refused(why)) => {
                tracing::error!(class = %name, %why, "the default StorageClass could not be changed; all claims are moved");
                return Ok(false);
            }
            Err(other) => return Err(other),
        }
    }
    Ok(true)
}

fn change(classes: &[StorageClass], config: &Config) -> Change {
    let mut change = Change::default();
    let is_ours =
        |class: &&StorageClass| [&config.source_sc, &config.dest_sc].contains(&&class.name_any());
    let defaults: Vec<&StorageClass> = classes.iter().filter(|class| is_default(class)).collect();
    let third = defaults.iter().filter(|class| !is_ours(class));
    let third: Vec<String> = third.map(|class| class.name_any()).collect();
    let is = |name: &str| defaults.iter().any(|class| class.name_any() == name);
    let may_move = third.is_empty() || config.set_default == SetDefault::Force;
    if may_move && !is(&config.dest_sc) {
        change.marks.push((config.dest_sc.clone(), true));
    }
    if is(&config.source_sc) {
        change.marks.push((config.source_sc.clone(), false));
    }
    if config.set_default == SetDefault::Force {
        change
            .marks
            .extend(third.into_iter().map(|name| (name, false)));
    } else {
        change.others = third;
    }
    change
}

fn is_default(class: &StorageClass) -> bool {
    let marked = |mark: &str| class.annotations().get(mark).is_some_and(|is| is == "true");
    marked(MARK) || marked(OLDER_MARK)
}

fn patch(class: &StorageClass, wanted: bool) -> serde_json::Value {
    let mut marks = BTreeMap::from([(MARK, wanted.to_string())]);
    if class.annotations().contains_key(OLDER_MARK) {
        marks.insert(OLDER_MARK, wanted.to_string());
    }
    json!({"metadata": {"annotations": marks}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::plan::tests::from;

    fn class(name: &str, marks: &[(&str, &str)]) -> StorageClass {
        let marks: BTreeMap<_, _> = marks.iter().copied().collect();
        from(json!({"metadata": {"name": name, "annotations": marks}, "provisioner": "p"}))
    }

    const YES: (&str, &str) = (MARK, "true");
    const OLDER: (&str, &str) = (OLDER_MARK, "true");
    const NO: (&str, &str) = (MARK, "false");

    /// What `true` and `force` do.
    fn changes(classes: &[StorageClass]) -> [Change; 2] {
        ["true", "force"].map(|how| change(classes, &config(&[("PVMIGRATE_SET_DEFAULT", how)])))
    }

    fn of(marks: &[(&str, bool)], others: &[&str]) -> Change {
        Change {
            marks: marks
                .iter()
                .map(|(name, is)| (name.to_string(), *is))
                .collect(),
            others: others.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_destination_becomes_the_default_and_the_source_no_longer() {
        for marks in [&[YES][..], &[OLDER], &[NO, OLDER]] {
            let classes = [class("a", marks), class("b", &[NO]), class("c", &[])];
            let expected = || of(&[("b", true), ("a", false)], &[]);
            assert_eq!(changes(&classes), [expected(), expected()]);
        }
        let none = [class("a", &[]), class("b", &[])];
        assert_eq!(
            changes(&none),
            [of(&[("b", true)], &[]), of(&[("b", true)], &[])]
        );
    }

    #[test]
    fn done_already_is_nothing_to_do() {
        let classes = [class("a", &[NO]), class("b", &[YES])];
        assert_eq!(changes(&classes), [Change::default(), Change::default()]);
    }

    #[test]
    fn a_third_class_stays_the_default_unless_forced() {
        let classes = [class("a", &[]), class("b", &[]), class("c", &[OLDER])];
        assert_eq!(
            changes(&classes),
            [of(&[], &["c"]), of(&[("b", true), ("c", false)], &[])]
        );
        let two = [class("a", &[YES]), class("b", &[]), class("c", &[YES])];
        assert_eq!(
            changes(&two),
            [
                of(&[("a", false)], &["c"]),
                of(&[("b", true), ("a", false), ("c", false)], &[])
            ]
        );
    }

    #[test]
    fn the_older_mark_is_kept_equal_where_it_is_there() {
        assert_eq!(
            patch(&class("a", &[OLDER]), false),
            json!({"metadata": {"annotations": {MARK: "false", OLDER_MARK: "false"}}})
        );
        assert_eq!(
            patch(&class("b", &[]), true),
            json!({"metadata": {"annotations": {MARK: "true"}}})
        );
    }
}
