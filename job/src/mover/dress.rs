//! What settings add to every pod that works on claims.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, Pod};

use crate::config::{Config, Strings};

/// Whose labels and annotations are no setting's to change.
const OURS: &str = "pvmigrate.io/";

/// The pod with the pull secrets, priority, tolerations, labels and annotations that movers shall
/// have.
pub fn dressed(mut pod: Pod, config: &Config) -> Pod {
    if let Some(spec) = &mut pod.spec {
        let secrets = config.image_pull_secrets.iter();
        let secrets = secrets.map(|name| LocalObjectReference { name: name.clone() });
        spec.image_pull_secrets = Some(secrets.collect());
        let class = &config.mover_priority_class_name;
        spec.priority_class_name = (!class.is_empty()).then(|| class.clone());
        let more = config
            .mover_tolerations
            .iter()
            .flat_map(|all| all.0.clone());
        spec.tolerations.get_or_insert_default().extend(more);
    }
    add(&mut pod.metadata.labels, config.mover_labels.as_ref());
    add(
        &mut pod.metadata.annotations,
        config.mover_annotations.as_ref(),
    );
    pod
}

fn add(to: &mut Option<BTreeMap<String, String>>, more: Option<&Strings>) {
    let more = more.iter().flat_map(|more| more.0.clone());
    let theirs = more.filter(|(key, _)| !key.starts_with(OURS));
    to.get_or_insert_default().extend(theirs);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::tests::config;
    use crate::mover::tests::record;
    use crate::mover::{Placement, mover_pod};

    #[test]
    fn a_mover_has_what_settings_add_and_stays_known_by_its_labels() {
        let config = config(&[
            ("PVMIGRATE_MOVER_PRIORITY_CLASS_NAME", "low"),
            (
                "PVMIGRATE_MOVER_TOLERATIONS",
                r#"[{"key": "spot", "operator": "Exists"}]"#,
            ),
            (
                "PVMIGRATE_MOVER_LABELS",
                r#"{"team": "shop", "pvmigrate.io/role": "none"}"#,
            ),
            (
                "PVMIGRATE_MOVER_ANNOTATIONS",
                r#"{"linkerd.io/inject": "enabled"}"#,
            ),
        ]);
        let placement = Placement {
            tolerations: vec![crate::plan::tests::from(json!({"key": "db"}))],
            ..Placement::default()
        };
        let pod = mover_pod(&record("Filesystem"), &config, &placement);
        let pod = serde_json::to_value(pod).unwrap();
        assert_eq!(pod["spec"]["priorityClassName"], "low");
        assert_eq!(
            pod["spec"]["tolerations"],
            json!([{"key": "db"}, {"key": "spot", "operator": "Exists"}])
        );
        let labels = &pod["metadata"]["labels"];
        assert_eq!(
            (&labels["team"], &labels["pvmigrate.io/role"]),
            (&json!("shop"), &json!("mover"))
        );
        assert_eq!(
            pod["metadata"]["annotations"]["linkerd.io/inject"],
            "enabled"
        );
    }
}
