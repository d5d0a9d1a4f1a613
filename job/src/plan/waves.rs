//! Which groups go first: the annotation `pvmigrate.io/wave`.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pvmigrate_record::names;

use super::full_name;
use super::ties::Frozen;

/// The wave of a group, and what cannot be read of it. It moves as one, so the lowest number on one
/// of its claims or workloads is that of all; without one it is 0.
pub fn wave(claims: &[PersistentVolumeClaim], users: &[Frozen]) -> (i64, Vec<String>) {
    let on_claims = claims.iter().filter_map(|claim| {
        let text = claim.annotations().get(names::WAVE)?;
        Some((format!("claim {}", full_name(claim)), text.as_str()))
    });
    let on_workloads = users.iter().filter_map(|frozen| {
        let (carrier, text) = frozen.user.wave?;
        Some((carrier.to_string(), text))
    });
    let (mut wave, mut refusals) = (None, Vec::new());
    for (carrier, text) in on_claims.chain(on_workloads) {
        match text.parse::<i64>() {
            Ok(number) => wave = Some(wave.map_or(number, |lowest: i64| lowest.min(number))),
            Err(_) => refusals.push(format!(
                "{carrier} has the annotation {} with value {text:?}: it has to be a whole number, the lower the earlier",
                names::WAVE
            )),
        }
    }
    (wave.unwrap_or_default(), refusals)
}
