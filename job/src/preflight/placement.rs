//! Where a destination may land: on a node that reaches the source, that its class serves, and that
//! the application may run on. Pure.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;

use super::consumers::{Consumer, consumers, on_one_node, parties};
use super::{claims, nodes, provisioner};
use crate::config::Config;
use crate::mover::Placement;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};
use crate::sites::{Spread, spreads};

/// How many nodes a sentence names; more are counted.
const NAMED: usize = 4;

/// One thing that not every node can do.
struct Constraint<'a> {
    words: String,
    allows: Box<dyn Fn(&Node) -> bool + 'a>,
}

/// Where one claim, or all claims of one pod, may land.
pub struct Site<'a> {
    pub claims: Vec<&'a PersistentVolumeClaim>,
    /// As of the consumer; its node, where it runs.
    pub placement: Placement,
    /// The nodes that are left; or, as a sentence, what leaves none.
    pub nodes: Result<Vec<&'a Node>, String>,
}

pub fn is_possible(observed: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    // A cluster always has nodes, unless we may not see them, which is another check's to say.
    if observed.surroundings.nodes.is_empty() {
        return Vec::new();
    }
    let sites = sites(observed, config, plan);
    let mut all: Vec<String> = sites.into_iter().filter_map(|s| s.nodes.err()).collect();
    all.dedup();
    let moved = claims(plan).map(|claim| (claim.namespace().unwrap_or_default(), claim.name_any()));
    let spreads = spreads(observed, config, &moved.collect());
    all.extend(spreads.iter().flat_map(Spread::refusals));
    all
}

/// The sites of all claims of the plan; a claim that several pods mount has several.
pub fn sites<'a>(observed: &'a Observed, config: &Config, plan: &'a Plan) -> Vec<Site<'a>> {
    let consumers = consumers(observed, plan);
    let class = observed.classes.get(&config.dest_sc);
    let mut all = Vec::new();
    let is_mounted = |claim: &PersistentVolumeClaim| consumers.iter().any(|c| c.mounts(claim));
    let unused: Vec<_> = claims(plan).filter(|claim| !is_mounted(claim)).collect();
    let ties = on_one_node(claims(plan), observed, config);
    for party in parties(consumers, &ties) {
        let moved = claims(plan).filter(|claim| party.iter().any(|one| one.mounts(claim)));
        let words: Vec<&str> = party.iter().map(|one| one.words.as_str()).collect();
        let mut placement = party[0].placement.clone();
        party[1..]
            .iter()
            .for_each(|other| placement.join(&other.placement));
        let mut constraints: Vec<_> = party.iter().flat_map(|c| of_volumes(observed, c)).collect();
        constraints.extend(class.and_then(|class| of_class(class, observed)));
        constraints.extend(party.iter().flat_map(|consumer| of_pod(consumer, config)));
        all.push(site(
            observed,
            &words.join(", "),
            moved.collect(),
            placement,
            &constraints,
        ));
    }
    for claim in unused {
        let volume = observed.volume_of(claim);
        let mut constraints: Vec<_> = volume.into_iter().filter_map(of_volume).collect();
        constraints.extend(class.and_then(|class| of_class(class, observed)));
        constraints.push(of_taints("no mover", &Placement::default(), config));
        let words = format!("claim {}", full_name(claim));
        all.push(site(
            observed,
            &words,
            vec![claim],
            Placement::default(),
            &constraints,
        ));
    }
    all
}

/// The nodes where a pod, of which claims are moved or not, may run after the move.
pub fn reached<'a>(
    observed: &'a Observed,
    config: &Config,
    consumer: &Consumer,
    is_moved: bool,
) -> Vec<&'a Node> {
    let class = observed.classes.get(&config.dest_sc).filter(|_| is_moved);
    let mut constraints = of_volumes(observed, consumer);
    constraints.extend(class.and_then(|class| of_class(class, observed)));
    constraints.extend(of_pod(consumer, config));
    let nodes = observed.surroundings.nodes.values();
    nodes
        .filter(|node| {
            constraints
                .iter()
                .all(|constraint| (constraint.allows)(node))
        })
        .collect()
}

/// Narrows the nodes by one constraint after the other.
fn site<'a>(
    observed: &'a Observed,
    words: &str,
    claims: Vec<&'a PersistentVolumeClaim>,
    placement: Placement,
    constraints: &[Constraint],
) -> Site<'a> {
    let mut left: Vec<&Node> = observed.surroundings.nodes.values().collect();
    let mut story = vec![format!("of {}", named(&left))];
    for constraint in constraints {
        let before = left.len();
        left.retain(|node| (constraint.allows)(node));
        if left.len() < before {
            story.push(format!("{} leaves {}", constraint.words, named(&left)));
        }
    }
    let nodes = if left.is_empty() {
        Err(format!(
            "no node is left for {words} after the move: {}",
            story.join(", ")
        ))
    } else {
        Ok(left)
    };
    Site {
        claims,
        placement,
        nodes,
    }
}

pub fn named(nodes: &[&Node]) -> String {
    match nodes.len() {
        0 => "none".into(),
        1..=NAMED => {
            let names: Vec<String> = nodes.iter().map(|node| node.name_any()).collect();
            names.join(", ")
        }
        more => format!("{more} nodes"),
    }
}

fn of_volumes<'a>(observed: &'a Observed, consumer: &Consumer) -> Vec<Constraint<'a>> {
    let mounted = consumer.claims.iter();
    let volumes = mounted.filter_map(|claim| observed.volume_named(&consumer.namespace, claim));
    volumes.filter_map(of_volume).collect()
}

fn of_volume(volume: &PersistentVolume) -> Option<Constraint<'_>> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required.as_ref()?;
    Some(Constraint {
        words: format!("volume {} (nodeAffinity)", volume.name_any()),
        allows: Box::new(move |node| nodes::is_selected(node, required)),
    })
}

fn of_class<'a>(class: &'a StorageClass, observed: &'a Observed) -> Option<Constraint<'a>> {
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    let driver = provisioner::csi_driver(class, observed);
    if topologies.is_empty() && driver.is_none() {
        return None;
    }
    let name = class.name_any();
    let words = match (topologies.is_empty(), driver) {
        (true, Some(driver)) => format!("CSI driver {driver} of StorageClass {name}"),
        _ => format!("StorageClass {name} (allowedTopologies)"),
    };
    Some(Constraint {
        words,
        allows: Box::new(move |node| {
            let serves = |driver| provisioner::is_registered(driver, &node.name_any(), observed);
            nodes::is_allowed(node, topologies) && driver.is_none_or(serves)
        }),
    })
}

fn of_pod<'a>(consumer: &'a Consumer, config: &Config) -> Vec<Constraint<'a>> {
    let (placement, words) = (&consumer.placement, &consumer.words);
    let mut all = Vec::new();
    if let Some(name) = &placement.node {
        all.push(Constraint {
            words: format!("{words} (it runs on {name})"),
            allows: Box::new(move |node| node.name_any() == *name),
        });
    }
    let selector = &placement.node_selector;
    if !selector.is_empty() {
        let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        all.push(Constraint {
            words: format!("{words} (nodeSelector {})", labels.join(",")),
            allows: Box::new(move |node| nodes::has_labels(node, selector)),
        });
    }
    if let Some(required) = &placement.node_affinity {
        all.push(Constraint {
            words: format!("{words} (required node affinity)"),
            allows: Box::new(move |node| nodes::is_selected(node, required)),
        });
    }
    all.push(of_taints(words, placement, config));
    all
}

fn of_taints<'a>(words: &str, placement: &Placement, config: &Config) -> Constraint<'a> {
    let mut tolerations = placement.tolerations.clone();
    let more = config.mover_tolerations.iter();
    tolerations.extend(more.flat_map(|more| more.0.clone()));
    Constraint {
        words: format!("what {words} tolerates (taints, cordons)"),
        allows: Box::new(move |node| nodes::intolerable(node, &tolerations).is_none()),
    }
}

#[cfg(test)]
mod tests;
