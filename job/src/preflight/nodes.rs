//! Which nodes a selector, a toleration or a topology allows: the scheduler's rules. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
    TopologySelectorTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

/// Whether one of the selector's terms fits.
pub fn is_selected(node: &Node, selector: &NodeSelector) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| fits(node, term))
}

/// A term without requirements fits no node.
fn fits(node: &Node, term: &NodeSelectorTerm) -> bool {
    let name = node.name_any();
    let labels = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let mut all = labels
        .map(|r| (r, node.labels().get(&r.key)))
        .chain(fields.map(|r| (r, (r.key == "metadata.name").then_some(&name))))
        .peekable();
    all.peek().is_some() && all.all(|(requirement, value)| is_met(requirement, value))
}

fn is_met(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let beside = || Some((number(value?)?, number(values.first()?)?));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => beside().is_some_and(|(is, than)| is > than),
        "Lt" => beside().is_some_and(|(is, than)| is < than),
        _ => false,
    }
}

pub fn has_labels(node: &Node, wanted: &BTreeMap<String, String>) -> bool {
    have(node.labels(), wanted)
}

fn have(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    let mut wanted = wanted.iter();
    wanted.all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a selector of labels, as a driver's capacities have it, fits the node.
pub fn is_labelled(node: &Node, selector: &LabelSelector) -> bool {
    do_fit(node.labels(), selector)
}

/// Whether a selector fits the labels of any object; an empty one fits all.
pub fn do_fit(labels: &BTreeMap<String, String>, selector: &LabelSelector) -> bool {
    let wanted = selector.match_labels.clone().unwrap_or_default();
    let mut expressions = selector.match_expressions.iter().flatten();
    have(labels, &wanted)
        && expressions.all(|expression| {
            let requirement = NodeSelectorRequirement {
                key: expression.key.clone(),
                operator: expression.operator.clone(),
                values: expression.values.clone(),
            };
            is_met(&requirement, labels.get(&expression.key))
        })
}

/// Whether one of a class's `allowedTopologies` fits; without any, all nodes do.
pub fn is_allowed(node: &Node, topologies: &[TopologySelectorTerm]) -> bool {
    let fits = |term: &TopologySelectorTerm| {
        let mut labels = term.match_label_expressions.iter().flatten();
        labels.all(|label| {
            let value = node.labels().get(&label.key);
            value.is_some_and(|value| label.values.contains(value))
        })
    };
    topologies.is_empty() || topologies.iter().any(fits)
}

/// The first taint that keeps a pod with these tolerations from the node.
pub fn intolerable(node: &Node, tolerations: &[Toleration]) -> Option<String> {
    let spec = node.spec.as_ref()?;
    let cordoned = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    let taints = spec.taints.iter().flatten();
    let cordon = (spec.unschedulable == Some(true)).then_some(&cordoned);
    let mut hard = taints
        .chain(cordon)
        .filter(|taint| taint.effect != "PreferNoSchedule");
    let taint = hard.find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))?;
    let value = taint.value.as_deref().filter(|value| !value.is_empty());
    let value = value.map(|value| format!("={value}")).unwrap_or_default();
    Some(format!("{}{value}:{}", taint.key, taint.effect))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || value == taint.value.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
