//! A volume that is provisioned before the pod that mounts it is made, where the pod's node is known.
//!
//! For a class that waits for its first consumer the scheduler names the node by an annotation of the
//! claim, and then looks every second whether there is a volume. Naming it ourselves saves that
//! second, and the one in which a scheduler has not yet seen a claim that was just made. A provisioner
//! that cannot make a volume there takes the annotation off: then the scheduler decides as ever.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use crate::cluster::View;
use crate::stop::Stop;
use crate::wait::{Seen, wait_seen};

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Has the volume of a new claim made for this node.
pub fn select(claim: &mut PersistentVolumeClaim, node: &str) {
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.insert(SELECTED_NODE.into(), node.into());
}

/// The node that a claim's volume is made for, where one was selected.
pub fn selected(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.annotations().get(SELECTED_NODE)
}

/// Waits until the volume is there, or is not to be had in this way. For a claim for which no node
/// was selected there is nothing to wait for.
pub async fn wait(
    claims: &View<PersistentVolumeClaim>,
    claim: &PersistentVolumeClaim,
    limit: Duration,
) -> Result<(), Stop> {
    let name = claim.name_any();
    let what = format!("a volume for claim {name}");
    let known = (name.as_str(), Some(claim.clone()));
    wait_seen(claims, known, &what, limit, |claim| match claim {
        Some(claim) if is_under_way(claim) => Seen::NotYet("its claim is Pending".into()),
        _ => Seen::Reached(()),
    })
    .await
}

fn is_under_way(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    claim.annotations().contains_key(SELECTED_NODE)
        && claim.metadata.deletion_timestamp.is_none()
        && matches!(phase, None | Some("Pending"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_waited_for_as_long_as_a_provisioner_works_for_the_selected_node() {
        let claim = |phase: &str| -> PersistentVolumeClaim {
            let metadata = json!({"name": "data"});
            serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}}))
                .unwrap()
        };
        assert!(!is_under_way(&claim("Pending")), "no node was selected");
        for (phase, expected) in [("Pending", true), ("Bound", false), ("Lost", false)] {
            let mut claim = claim(phase);
            select(&mut claim, "node-a");
            assert_eq!(is_under_way(&claim), expected, "{phase}");
        }
    }
}
