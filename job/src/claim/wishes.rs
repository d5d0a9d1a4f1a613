//! What was said about a claim's destination: its size and its access modes. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::record::Wishes;

use crate::config::{Config, quantity};
use crate::plan::full_name;

const MODES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", ALONE];
/// The mode that goes with no other.
const ALONE: &str = "ReadWriteOncePod";

/// What the settings and the claim's own annotations say; or what is wrong with those.
pub fn wishes(claim: &PersistentVolumeClaim, config: &Config) -> Result<Wishes, String> {
    Ok(Wishes {
        storage: storage(claim, config)?,
        access_modes: access_modes(claim)?,
    })
}

/// A setting that names the claim goes before its annotation, and that before a setting for all.
fn storage(claim: &PersistentVolumeClaim, config: &Config) -> Result<Option<String>, String> {
    let sizes = config.sizes.iter();
    let named = |name: Option<&PersistentVolumeClaim>| {
        let mut sizes = sizes.clone().rev();
        let found = sizes.find(|size| match (&size.claim, name) {
            (Some(size), Some(claim)) => size.is(claim),
            (None, None) => true,
            _ => false,
        });
        found.map(|size| size.size.clone())
    };
    if let Some(size) = named(Some(claim)) {
        return Ok(Some(size));
    }
    match claim.annotations().get(names::SIZE) {
        Some(said) => quantity(said.trim())
            .map(Some)
            .map_err(|why| wrong(claim, names::SIZE, said, &why)),
        None => Ok(named(None)),
    }
}

fn access_modes(claim: &PersistentVolumeClaim) -> Result<Vec<String>, String> {
    let said = [names::ACCESS_MODE, names::OLDER_ACCESS_MODE]
        .into_iter()
        .find_map(|name| Some((name, claim.annotations().get(name)?)));
    let Some((annotation, said)) = said else {
        return Ok(Vec::new());
    };
    let modes: Vec<String> = said
        .split(',')
        .map(|mode| mode.trim().to_string())
        .collect();
    if let Some(unknown) = modes.iter().find(|mode| !MODES.contains(&mode.as_str())) {
        let why = format!("{unknown:?} is none of {}", MODES.join(", "));
        return Err(wrong(claim, annotation, said, &why));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == ALONE) {
        let why = format!("{ALONE} goes with no other mode");
        return Err(wrong(claim, annotation, said, &why));
    }
    Ok(modes)
}

fn wrong(claim: &PersistentVolumeClaim, annotation: &str, said: &str, why: &str) -> String {
    format!(
        "claim {} has the annotation {annotation}: {said:?}: {why}",
        full_name(claim)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::config;
    use crate::plan::tests::from;

    fn claim(annotations: &[(&str, &str)]) -> PersistentVolumeClaim {
        let mut claim: PersistentVolumeClaim =
            from(json!({"metadata": {"namespace": "shop", "name": "x"}}));
        let annotations = annotations
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()));
        claim.metadata.annotations = Some(annotations.collect());
        claim
    }

    #[test]
    fn the_size_is_said_by_name_then_by_annotation_then_for_all() {
        let annotated = [(names::SIZE, "2Gi")];
        for (sizes, annotations, expected) in [
            ("", &[][..], None),
            ("", &annotated[..], Some("2Gi")),
            ("*=1Gi", &[], Some("1Gi")),
            ("*=1Gi", &annotated, Some("2Gi")),
            ("shop/x=3Gi,*=1Gi", &annotated, Some("3Gi")),
            ("shop/y=3Gi,shop/x=4Gi", &[], Some("4Gi")),
            ("web/x=3Gi", &[], None),
        ] {
            let config = config(&[("PVMIGRATE_SIZES", sizes)]);
            let found = wishes(&claim(annotations), &config).unwrap().storage;
            assert_eq!(found.as_deref(), expected, "{sizes} {annotations:?}");
        }
    }

    #[test]
    fn access_modes_are_said_by_either_annotation_ours_first() {
        let modes = |annotations: &[(&str, &str)]| {
            wishes(&claim(annotations), &config(&[])).map(|wishes| wishes.access_modes)
        };
        assert_eq!(modes(&[]).unwrap(), Vec::<String>::new());
        let older = (names::OLDER_ACCESS_MODE, "ReadWriteMany");
        assert_eq!(modes(&[older]).unwrap(), ["ReadWriteMany"]);
        let ours = (names::ACCESS_MODE, "ReadWriteOnce, ReadOnlyMany");
        assert_eq!(
            modes(&[older, ours]).unwrap(),
            ["ReadWriteOnce", "ReadOnlyMany"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_said_with_the_claim_and_its_annotation() {
        for (annotation, said, sentence) in [
            (
                names::SIZE,
                "big",
                r#"claim shop/x has the annotation pvmigrate.io/size: "big": write a size as a quantity such as 20Gi"#,
            ),
            (
                names::ACCESS_MODE,
                "RWX",
                r#"claim shop/x has the annotation pvmigrate.io/access-mode: "RWX": "RWX" is none of ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod"#,
            ),
            (
                names::OLDER_ACCESS_MODE,
                "ReadWriteOnce,ReadWriteOncePod",
                r#"claim shop/x has the annotation kurl.sh/pvcmigrate-destinationaccessmode: "ReadWriteOnce,ReadWriteOncePod": ReadWriteOncePod goes with no other mode"#,
            ),
        ] {
            let error = wishes(&claim(&[(annotation, said)]), &config(&[])).unwrap_err();
            assert_eq!(error, sentence);
        }
    }
}
