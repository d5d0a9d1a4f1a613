//! What was asked for, by settings and annotations, against what there is.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::claims;
use crate::claim::{storage, wishes};
use crate::config::{Config, class_of};
use crate::observe::Observed;
use crate::plan::{Plan, full_name};
use crate::quantity::bytes;

/// A claim that is named and not moved is a mistake, or was moved already.
pub fn named_claims_are_there(observed: &Observed, config: &Config, _: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for name in &config.claims {
        if !config.selects(&name.namespace) {
            all.push(format!(
                "claims: {name} is in a namespace that namespaces leaves out"
            ));
            continue;
        }
        let Some(claim) = observed.claims.iter().find(|claim| name.is(claim)) else {
            all.push(format!("claims: claim {name} does not exist"));
            continue;
        };
        let class = class_of(claim, observed.volume_of(claim));
        let is_asked_for = class == config.source_sc
            || class == config.dest_sc
            || (class.is_empty() && config.include_unclassed);
        if !is_asked_for {
            let is = match class {
                "" => "no StorageClass".into(),
                class => format!("StorageClass {class}"),
            };
            all.push(format!(
                "claims: claim {name} is of {is}, not of {}",
                config.source_sc
            ));
        }
    }
    all
}

/// Whether a smaller volume holds the files of a claim is for its mover to find out, before
/// anything is stopped.
pub fn wishes_can_be_met(_: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    claims(plan)
        .filter_map(|claim| match wishes(claim, config) {
            Ok(wishes) => cut_off(claim, &wishes.storage?),
            Err(why) => Some(why),
        })
        .collect()
}

/// Why a claim cannot be made so small.
fn cut_off(claim: &PersistentVolumeClaim, size: &str) -> Option<String> {
    let has = storage(claim.status.as_ref()?.capacity.as_ref());
    let is_block = claim.spec.as_ref()?.volume_mode.as_deref() == Some("Block");
    (is_block && bytes(size) < bytes(&has)).then(|| {
        format!(
            "claim {} is to be made {size} and is a block device of {has}: its end may be in use, so it cannot be made smaller",
            full_name(claim)
        )
    })
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::config::tests::config;
    use crate::plan::plan;
    use crate::plan::tests::{from, observed};

    fn said(
        check: fn(&Observed, &Config, &Plan) -> Vec<String>,
        observed: &Observed,
        changes: &[(&str, &str)],
    ) -> Vec<String> {
        let config = config(changes);
        check(observed, &config, &plan(observed, &config))
    }

    #[test]
    fn a_named_claim_that_is_not_there_is_said_with_why() {
        let observed = observed(&["x"]);
        let names = "shop/x,shop/y,shop/other,web/x";
        let changes = [
            ("PVMIGRATE_CLAIMS", names),
            ("PVMIGRATE_NAMESPACES", "shop"),
        ];
        assert_eq!(
            said(named_claims_are_there, &observed, &changes),
            [
                "claims: claim shop/y does not exist",
                "claims: claim shop/other is of StorageClass c, not of a",
                "claims: web/x is in a namespace that namespaces leaves out",
            ]
        );
        // One that is there already is not asked for again.
        let changes = [("PVMIGRATE_CLAIMS", "shop/x"), ("PVMIGRATE_SOURCE_SC", "z")];
        let changes = [&changes[..], &[("PVMIGRATE_DEST_SC", "a")]].concat();
        let none: [&str; 0] = [];
        assert_eq!(said(named_claims_are_there, &observed, &changes), none);
    }

    #[test]
    fn a_size_that_is_known_to_be_too_small_is_refused() {
        let mut observed = observed(&["x"]);
        observed.claims[0].status = from(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}));
        let half = [("PVMIGRATE_SIZES", "*=1Gi")];
        let none: [&str; 0] = [];
        assert_eq!(said(wishes_can_be_met, &observed, &half), none);
        observed.claims[0].spec.as_mut().unwrap().volume_mode = Some("Block".into());
        assert_eq!(
            said(wishes_can_be_met, &observed, &half),
            [
                "claim shop/x is to be made 1Gi and is a block device of 2Gi: its end may be in use, so it cannot be made smaller"
            ]
        );
        assert_eq!(
            said(
                wishes_can_be_met,
                &observed,
                &[("PVMIGRATE_SIZES", "*=2Gi")]
            ),
            none
        );
    }

    #[test]
    fn an_annotation_that_cannot_be_read_is_refused() {
        let mut observed = observed(&["x"]);
        observed.claims[0]
            .annotations_mut()
            .insert("pvmigrate.io/size".into(), "big".into());
        assert_eq!(
            said(wishes_can_be_met, &observed, &[]),
            [
                r#"claim shop/x has the annotation pvmigrate.io/size: "big": write a size as a quantity such as 20Gi"#
            ]
        );
    }
}
