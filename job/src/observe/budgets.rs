//! PodDisruptionBudgets: which pods they are about, and whether they ever allow an eviction.

use std::collections::BTreeMap;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::cluster::Cluster;
use crate::stop::Stop;

#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: String,
    pub name: String,
    selector: Option<LabelSelector>,
    min_available: Option<IntOrString>,
    max_unavailable: Option<IntOrString>,
    /// How many pods its controller has counted.
    expected: i32,
}

pub async fn list(cluster: &Cluster) -> Result<Vec<Budget>, Stop> {
    cluster
        .collect(&cluster.all(), |budget: PodDisruptionBudget| {
            Budget::of(&budget)
        })
        .await
}

impl Budget {
    pub fn of(budget: &PodDisruptionBudget) -> Option<Self> {
        let spec = budget.spec.clone()?;
        Some(Self {
            namespace: budget.namespace()?,
            name: budget.name_any(),
            selector: spec.selector,
            min_available: spec.min_available,
            max_unavailable: spec.max_unavailable,
            expected: budget.status.as_ref().map_or(0, |s| s.expected_pods),
        })
    }

    /// Whether it is about pods with these labels. No selector is about none, an empty one about
    /// all.
    pub fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let Some(selector) = &self.selector else {
            return false;
        };
        let equal = selector.match_labels.iter().flatten();
        let rules = selector.match_expressions.iter().flatten();
        self.namespace == namespace
            && equal
                .into_iter()
                .all(|(key, value)| labels.get(key) == Some(value))
            && rules.into_iter().all(|rule| {
                let value = labels.get(&rule.key);
                let is_listed =
                    value.is_some_and(|value| rule.values.iter().flatten().any(|v| v == value));
                match rule.operator.as_str() {
                    "In" => is_listed,
                    "NotIn" => !is_listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }

    /// Why it never allows an eviction, even when all of its `pods` pods are Ready; none if it
    /// does. Its own controller may know of more pods.
    pub fn never_allows(&self, pods: i32) -> Option<String> {
        let pods = pods.max(self.expected);
        if let Some(max) = &self.max_unavailable {
            let (text, percent) = read(max);
            return (percent == Some(0) || text == "0")
                .then(|| format!("maxUnavailable is {text}"));
        }
        let min = self.min_available.as_ref()?;
        let (text, percent) = read(min);
        let needed = match percent {
            // Rounded up, as the API does.
            Some(percent) => (i64::from(pods) * i64::from(percent) + 99) / 100,
            None => text.parse().unwrap_or_default(),
        };
        (needed >= i64::from(pods)).then(|| format!("minAvailable is {text}, of {pods} pods"))
    }
}

/// As it was written, and the number of a percentage.
fn read(value: &IntOrString) -> (String, Option<i32>) {
    match value {
        IntOrString::Int(number) => (number.to_string(), None),
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok());
            (text.clone(), percent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(spec: &Value, expected: i32) -> Budget {
        let status = json!({"expectedPods": expected, "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0});
        let object =
            json!({"metadata": {"name": "b", "namespace": "shop"}, "spec": spec, "status": status});
        Budget::of(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn a_budget_that_never_allows_an_eviction_is_told_from_one_that_only_does_not_now() {
        for (spec, pods, expected, why) in [
            (
                json!({"maxUnavailable": 0}),
                3,
                0,
                Some("maxUnavailable is 0"),
            ),
            (
                json!({"maxUnavailable": "0%"}),
                3,
                3,
                Some("maxUnavailable is 0%"),
            ),
            (json!({"maxUnavailable": 1}), 1, 0, None),
            // Rounded up: one pod.
            (json!({"maxUnavailable": "1%"}), 3, 0, None),
            (
                json!({"minAvailable": 3}),
                3,
                3,
                Some("minAvailable is 3, of 3 pods"),
            ),
            (json!({"minAvailable": 2}), 3, 0, None),
            // Other pods count too.
            (json!({"minAvailable": 3}), 3, 5, None),
            (
                json!({"minAvailable": "100%"}),
                9,
                0,
                Some("minAvailable is 100%, of 9 pods"),
            ),
            (
                json!({"minAvailable": "70%"}),
                3,
                0,
                Some("minAvailable is 70%, of 3 pods"),
            ),
            (json!({"minAvailable": "66%"}), 3, 0, None),
            (json!({}), 3, 0, None),
        ] {
            assert_eq!(
                budget(&spec, expected).never_allows(pods).as_deref(),
                why,
                "{spec}"
            );
        }
    }

    #[test]
    fn a_selector_selects_as_the_api_does() {
        let labels: BTreeMap<String, String> = [("app", "db"), ("tier", "back")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        let rule = |key: &str, operator: &str, values: &[&str]| json!({"selector": {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}});
        for (spec, covered) in [
            (json!({}), false),
            (json!({"selector": {}}), true),
            (json!({"selector": {"matchLabels": {"app": "db"}}}), true),
            (json!({"selector": {"matchLabels": {"app": "web"}}}), false),
            (rule("app", "In", &["db", "x"]), true),
            (rule("app", "NotIn", &["db"]), false),
            (rule("no", "NotIn", &["db"]), true),
            (rule("app", "Exists", &[]), true),
            (rule("app", "DoesNotExist", &[]), false),
        ] {
            assert_eq!(budget(&spec, 0).covers("shop", &labels), covered, "{spec}");
        }
        assert!(!budget(&json!({"selector": {}}), 0).covers("other", &labels));
    }
}
