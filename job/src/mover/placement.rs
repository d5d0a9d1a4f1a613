//! Where a mover runs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PodSecurityContext, PodSpec, Toleration,
};

use super::together;

/// Where a mover has to run, taken from the claim's consumer or from the template of its workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// The node of the running consumer: a ReadWriteOnce source can be mounted nowhere else.
    pub node: Option<String>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub node_affinity: Option<NodeSelector>,
    pub security: Option<PodSecurityContext>,
    /// The claims that one pod mounts, of a workload that has no pod now: their movers run on one
    /// node, and so their new volumes can be reached from one.
    pub together: BTreeSet<String>,
}

impl Placement {
    /// From the spec of a consumer, or of the template that would make one.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        Self {
            node: spec.node_name.clone(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_affinity: affinity.and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            }),
            security: spec.security_context.clone(),
            together: BTreeSet::new(),
        }
    }

    /// Narrows it to the nodes that this selector allows too: terms are alternatives, so each of
    /// one is joined with each of the other.
    pub fn narrow(&mut self, selector: &NodeSelector) {
        let Some(before) = self.node_affinity.take() else {
            self.node_affinity = Some(selector.clone());
            return;
        };
        let mut terms = Vec::new();
        for one in &before.node_selector_terms {
            for other in &selector.node_selector_terms {
                let mut term = one.clone();
                let labels = other.match_expressions.iter().flatten().cloned();
                term.match_expressions
                    .get_or_insert_default()
                    .extend(labels);
                let fields = other.match_fields.iter().flatten().cloned();
                term.match_fields.get_or_insert_default().extend(fields);
                terms.push(term);
            }
        }
        self.node_affinity = Some(NodeSelector {
            node_selector_terms: terms,
        });
    }

    /// Narrows it to where pods of the other's place may run as well.
    pub fn join(&mut self, other: &Self) {
        self.node = self.node.take().or_else(|| other.node.clone());
        self.node_selector.extend(other.node_selector.clone());
        self.tolerations
            .retain(|one| other.tolerations.contains(one));
        if let Some(affinity) = &other.node_affinity {
            self.narrow(affinity);
        }
        self.together.extend(other.together.clone());
    }

    /// The terms of the consumer, each narrowed to its node. By affinity, never by `nodeName`:
    /// that would bypass the scheduler, and a WaitForFirstConsumer claim would wait for ever.
    pub fn affinity(&self) -> Option<Affinity> {
        let mut terms = self
            .node_affinity
            .clone()
            .map(|selector| selector.node_selector_terms)
            .unwrap_or_default();
        if let Some(node) = &self.node {
            if terms.is_empty() {
                terms.push(NodeSelectorTerm::default());
            }
            for term in &mut terms {
                term.match_fields
                    .get_or_insert_default()
                    .push(NodeSelectorRequirement {
                        key: "metadata.name".into(),
                        operator: "In".into(),
                        values: Some(vec![node.clone()]),
                    });
            }
        }
        let nodes = (!terms.is_empty()).then(|| NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: terms,
            }),
            ..NodeAffinity::default()
        });
        let pods = together::affinity(&self.together);
        (nodes.is_some() || pods.is_some()).then(|| Affinity {
            node_affinity: nodes,
            pod_affinity: pods,
            ..Affinity::default()
        })
    }
}
