//! Volumes of the source class that no claim uses: nothing moves them, so they are named.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;

use crate::config::{Config, class_of_volume};
use crate::observe::{Observed, record_of};

/// Their names, each with why nothing moves it. What a migration has left behind is no surprise,
/// and not among them.
pub fn unused(observed: &Observed, config: &Config) -> Vec<(String, String)> {
    let volumes = observed.volumes.values();
    volumes
        .filter(|volume| class_of_volume(volume) == config.source_sc)
        .filter(|volume| record_of(volume).is_none())
        .filter_map(|volume| Some((volume.name_any(), why(volume)?)))
        .collect()
}

fn why(volume: &PersistentVolume) -> Option<String> {
    let status = volume.status.as_ref();
    let claim = volume.spec.as_ref()?.claim_ref.as_ref();
    let claim = claim.map(|claim| {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}/{}", text(&claim.namespace), text(&claim.name))
    });
    match (status.and_then(|status| status.phase.as_deref())?, claim) {
        ("Available", None) => Some("it is Available: no claim has taken it".into()),
        ("Available", Some(claim)) => Some(format!(
            "it is reserved for claim {claim}, which is not there"
        )),
        ("Released", claim) => Some(format!(
            "it is Released: its claim {} is gone, and nothing uses it",
            claim.unwrap_or_default()
        )),
        ("Failed", _) => Some("it is Failed: its provisioner could not delete it".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::config;
    use crate::plan::tests::from;

    fn volume(
        name: &str,
        class: &str,
        phase: &str,
        claim: Option<&str>,
    ) -> (String, PersistentVolume) {
        let claim = claim.map_or(
            Value::Null,
            |name| json!({"namespace": "shop", "name": name}),
        );
        let volume = json!({
            "metadata": {"name": name},
            "spec": {"storageClassName": class, "claimRef": claim},
            "status": {"phase": phase}
        });
        (name.into(), from(volume))
    }

    #[test]
    fn volumes_that_no_claim_uses_are_named_and_others_not() {
        let mut migrated = volume("migrated", "a", "Released", Some("x"));
        let record = (
            pvmigrate_record::names::RECORD.to_string(),
            "{}".to_string(),
        );
        migrated.1.metadata.annotations = Some([record].into());
        let observed = Observed {
            volumes: vec![
                volume("free", "a", "Available", None),
                volume("old", "a", "Released", Some("x")),
                volume("promised", "a", "Available", Some("y")),
                volume("used", "a", "Bound", Some("z")),
                volume("other", "b", "Available", None),
                migrated,
            ]
            .into_iter()
            .collect(),
            ..Observed::default()
        };
        let said: Vec<String> = unused(&observed, &config(&[]))
            .into_iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        assert_eq!(
            said,
            [
                "free: it is Available: no claim has taken it",
                "old: it is Released: its claim shop/x is gone, and nothing uses it",
                "promised: it is reserved for claim shop/y, which is not there",
            ]
        );
    }
}
