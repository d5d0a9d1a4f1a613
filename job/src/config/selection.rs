//! Which claims are asked for. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use super::{Config, sorted};
use crate::config::ClaimName;

/// How classes were named before there was a field for them. Where both are, this one counts: so
/// the API server's own code reads it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The class of a claim: its own, else that of its volume; empty if neither is of one.
pub fn class_of<'a>(
    claim: &'a PersistentVolumeClaim,
    volume: Option<&'a PersistentVolume>,
) -> &'a str {
    let spec = claim.spec.as_ref();
    let own = said(claim.annotations(), || spec?.storage_class_name.as_deref());
    own.or_else(|| Some(class_of_volume(volume?)))
        .unwrap_or_default()
}

pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    said(volume.annotations(), || spec?.storage_class_name.as_deref()).unwrap_or_default()
}

fn said<'a>(
    annotations: &'a BTreeMap<String, String>,
    field: impl FnOnce() -> Option<&'a str>,
) -> Option<&'a str> {
    let old = annotations.get(OLD_CLASS).map(String::as_str);
    old.or_else(field).filter(|class| !class.is_empty())
}

impl Config {
    /// Whether claims of this namespace are asked for.
    pub fn selects(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace)
    }

    /// Whether this claim is asked for; one that is excluded too, which is then said.
    pub fn selects_claim(
        &self,
        claim: &PersistentVolumeClaim,
        volume: Option<&PersistentVolume>,
    ) -> bool {
        let class = class_of(claim, volume);
        let is_of_class = class == self.source_sc || (class.is_empty() && self.include_unclassed);
        let selector = self.selector.as_ref();
        is_of_class
            && self.selects(&claim.namespace().unwrap_or_default())
            && selector.is_none_or(|query| query.matches(claim.labels()))
            && (self.claims.is_empty() || self.claims.iter().any(|name| name.is(claim)))
    }

    pub fn excludes(&self, claim: &PersistentVolumeClaim) -> bool {
        self.exclude_claims.iter().any(|name| name.is(claim))
    }

    /// Which claims are asked for, beside their namespaces, as a person reads it; empty: all.
    pub fn selection(&self) -> Vec<String> {
        let list = |what: &str, names: &[ClaimName]| {
            (!names.is_empty()).then(|| format!("{what} {}", sorted(names).join(",")))
        };
        let selector = self.selector.as_ref();
        let unclassed = self.include_unclassed;
        [
            selector.map(|query| format!("selector {query}")),
            list("claims", &self.claims),
            list("without", &self.exclude_claims),
            unclassed.then(|| "also of no class".to_string()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::config;
    use crate::plan::tests::from;

    fn claim(name: &str, class: &Value, annotations: &Value) -> PersistentVolumeClaim {
        from(json!({
            "metadata": {"namespace": "shop", "name": name, "annotations": annotations,
                "labels": {"app": name}},
            "spec": {"storageClassName": class}
        }))
    }

    fn volume(class: &Value) -> PersistentVolume {
        from(json!({"metadata": {"name": "pv"}, "spec": {"storageClassName": class}}))
    }

    #[test]
    fn a_claim_without_a_class_is_of_its_volumes() {
        for (own, annotations, of_volume, expected) in [
            (json!("a"), json!({}), json!("a"), "a"),
            (Value::Null, json!({OLD_CLASS: "a"}), json!("z"), "a"),
            (json!("z"), json!({OLD_CLASS: "a"}), json!("z"), "a"),
            (Value::Null, json!({}), json!("a"), "a"),
            (json!(""), json!({}), json!("a"), "a"),
            (json!(""), json!({}), Value::Null, ""),
        ] {
            let (claim, volume) = (claim("x", &own, &annotations), volume(&of_volume));
            assert_eq!(class_of(&claim, Some(&volume)), expected, "{claim:?}");
        }
    }

    #[test]
    fn claims_are_selected_by_class_namespace_label_and_name_together() {
        let (x, none) = (claim("x", &json!("a"), &json!({})), Value::Null);
        let selects = |changes: &[(&str, &str)]| config(changes).selects_claim(&x, None);
        for changes in [
            vec![],
            vec![("PVMIGRATE_NAMESPACES", "shop,web")],
            vec![("PVMIGRATE_SELECTOR", "app=x")],
            vec![
                ("PVMIGRATE_CLAIMS", "shop/y,shop/x"),
                ("PVMIGRATE_SELECTOR", "app"),
            ],
            vec![("PVMIGRATE_EXCLUDE_CLAIMS", "shop/x")],
        ] {
            assert!(selects(&changes), "{changes:?}");
        }
        for changes in [
            vec![("PVMIGRATE_SOURCE_SC", "z")],
            vec![("PVMIGRATE_NAMESPACES", "web")],
            vec![("PVMIGRATE_SELECTOR", "app=y")],
            vec![("PVMIGRATE_CLAIMS", "web/x")],
            vec![
                ("PVMIGRATE_CLAIMS", "shop/x"),
                ("PVMIGRATE_NAMESPACES", "web"),
            ],
        ] {
            assert!(!selects(&changes), "{changes:?}");
        }
        let unclassed = claim("x", &none, &json!({}));
        let also = config(&[("PVMIGRATE_INCLUDE_UNCLASSED", "true")]);
        assert!(also.selects_claim(&unclassed, Some(&volume(&none))));
        assert!(!config(&[]).selects_claim(&unclassed, Some(&volume(&none))));
        assert!(!also.selects_claim(&unclassed, Some(&volume(&json!("z")))));
        assert!(config(&[("PVMIGRATE_EXCLUDE_CLAIMS", "shop/x")]).excludes(&x));
        assert!(!config(&[("PVMIGRATE_EXCLUDE_CLAIMS", "web/x")]).excludes(&x));
    }
}
