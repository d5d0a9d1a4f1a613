//! The state that a migration must end in, wherever it was interrupted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
};
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use pvmigrate_record::names;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Outcome, Record};
use tokio::process::Command;

use super::application::{look, pods};
use super::left::{folders, no_fence};
use super::point::Ending;
use super::scene::Scene;
use crate::csi::await_detached;
use crate::wait_for;

/// How long what others do may take after the Job has ended: a provisioner's deletions.
const SETTLE: Duration = Duration::from_secs(90);

/// How the migration of each claim ends.
pub type Ends = BTreeMap<String, Ending>;

/// Checks everything, against how it was before, and what the run's report says.
pub async fn check(scene: &Scene<'_>, ending: Ending) -> Result<()> {
    let all = scene.kind.claims().iter();
    let ends = all.map(|claim| ((*claim).to_string(), ending)).collect();
    settled(scene, &ends).await?;
    report(scene, ending).await
}

/// How an abort has to end, as the records stand: where a pod may have run on the destination, the
/// claim is migrated, and it goes back everywhere else. The pods of a set are groups of their own.
pub async fn after_an_abort(scene: &Scene<'_>) -> Result<Ends> {
    let volumes = scene.volumes().await?;
    let mut ends = Ends::new();
    for claim in scene.kind.claims() {
        let source = volumes
            .iter()
            .find(|volume| volume.name_any() == scene.sources[*claim])
            .context("the source volume is missing")?;
        let record = source.annotations().get(names::RECORD);
        let record = record.map(|json| Record::parse(json)).transpose()?;
        let is_open = record.is_some_and(|record| {
            let is_off = !record.fence.on && record.phase == Phase::Rebound;
            record.heading == Heading::Destination && (is_off || record.phase > Phase::Rebound)
        });
        let ending = if is_open {
            Ending::Migrated
        } else {
            Ending::Aborted
        };
        ends.insert((*claim).to_string(), ending);
    }
    Ok(ends)
}

/// Checks everything but the report.
pub async fn settled(scene: &Scene<'_>, ends: &Ends) -> Result<()> {
    let what = format!("namespace {} to be as after any other run", scene.namespace);
    wait_for(&what, SETTLE, async || {
        workload(scene).await?;
        let claims = claims(scene).await?;
        volumes(scene, &claims, ends).await?;
        no_fence(scene).await?;
        folders(scene, ends)
    })
    .await?;
    let after = look(&scene.release.cluster, &scene.namespace, scene.kind).await?;
    for (claim, before) in &scene.before {
        let after = after.get(claim).context("a claim vanished")?;
        ensure!(
            before == after,
            "claim {claim} was {before:#?}, is {after:#?}"
        );
    }
    no_line_is_lost(scene, ends).await
}

/// It runs as it did, and carries nothing of ours.
async fn workload(scene: &Scene<'_>) -> Result<()> {
    let cluster = &scene.release.cluster;
    pods(cluster, &scene.namespace, scene.kind).await?;
    let found = scene
        .kind
        .workload(&cluster.client, &scene.namespace)
        .await?;
    let wanted = scene.kind.claims().len();
    for field in ["/spec/replicas", "/status/readyReplicas"] {
        let is = found.pointer(field).and_then(serde_json::Value::as_u64);
        ensure!(
            is == Some(wanted as u64),
            "the workload's {field} is {is:?}"
        );
    }
    let metadata = found["metadata"].to_string();
    let marked = metadata.contains("pvmigrate.io/frozen");
    ensure!(!marked, "the workload carries a mark: {metadata}");
    Ok(())
}

/// The claims by name; no other is left.
async fn claims(scene: &Scene<'_>) -> Result<BTreeMap<String, PersistentVolumeClaim>> {
    let client = scene.release.cluster.client.clone();
    let api = Api::<PersistentVolumeClaim>::namespaced(client, &scene.namespace);
    let all = api.list(&ListParams::default()).await?.items;
    let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    ensure!(names == scene.kind.claims(), "there are claims {names:?}");
    for claim in &all {
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        ensure!(
            phase == Some("Bound"),
            "claim {} is {phase:?}",
            claim.name_any()
        );
    }
    Ok(all.into_iter().map(|c| (c.name_any(), c)).collect())
}

/// Each claim has the volume that it must have, and no other volume is left.
async fn volumes(
    scene: &Scene<'_>,
    claims: &BTreeMap<String, PersistentVolumeClaim>,
    ends: &Ends,
) -> Result<()> {
    let all: BTreeMap<String, PersistentVolume> = scene
        .volumes()
        .await?
        .into_iter()
        .map(|volume| (volume.name_any(), volume))
        .collect();
    let migrated = ends.values().filter(|end| **end == Ending::Migrated);
    ensure!(
        all.len() == claims.len() + migrated.count(),
        "{} claims have volumes {:?}",
        claims.len(),
        all.keys()
    );
    for (name, claim) in claims {
        let ending = ends[name];
        let spec = claim.spec.clone().unwrap_or_default();
        let holds = spec.volume_name.unwrap_or_default();
        let volume = all.get(&holds).context("a claim's volume is missing")?;
        let source = &scene.sources[name];
        let [from, to] = &scene.kind.classes(&scene.release.cluster);
        let (phase, policy, claim_uid) = standing(volume);
        ensure!(
            phase == "Bound" && policy == "Delete" && claim_uid == claim.uid(),
            "volume {holds} of claim {name} is {phase}, {policy}, of claim UID {claim_uid:?}"
        );
        let kept = all.get(source).context("the source volume is missing")?;
        let record = kept.annotations().get(names::RECORD);
        if record.is_none() && ending == Ending::Aborted && holds == *source {
            // Nothing had been begun.
            continue;
        }
        let record = Record::parse(record.context("the source has no record")?)?;
        ensure!(
            record.phase == Phase::Done && !record.fence.on,
            "the record of {name} says {:?}, {:?}",
            record.phase,
            record.fence
        );
        let class = spec.storage_class_name.unwrap_or_default();
        if ending != Ending::Migrated {
            let back = (record.heading, record.outcome);
            let outcome = match ending {
                Ending::Aborted => Outcome::Aborted,
                _ => Outcome::Failed,
            };
            ensure!(
                holds == *source && class == *from && back == (Heading::Source, Some(outcome)),
                "claim {name} is on {holds} of {class}, the record says {back:?}"
            );
            continue;
        }
        ensure!(
            holds != *source && class == *to,
            "claim {name} is on {holds} of {class}"
        );
        let meta = serde_json::to_string(volume.meta())?;
        let marked = [
            names::RUN,
            names::ROLE,
            names::SOURCE,
            names::RECLAIM_POLICY,
            names::RECORD,
        ]
        .into_iter()
        .find(|key| volume.labels().contains_key(*key) || volume.annotations().contains_key(*key));
        ensure!(
            marked.is_none(),
            "the destination of {name} is marked: {meta}"
        );
        let (phase, policy, _) = standing(kept);
        ensure!(
            phase == "Released" && policy == "Retain" && record.heading == Heading::Destination,
            "the source of {name} is {phase}, {policy}"
        );
    }
    Ok(())
}

/// A volume's phase, its policy, and the UID of its claim.
fn standing(volume: &PersistentVolume) -> (String, String, Option<String>) {
    let status = volume.status.clone().unwrap_or_default();
    let spec = volume.spec.clone().unwrap_or_default();
    (
        status.phase.unwrap_or_default(),
        spec.persistent_volume_reclaim_policy.unwrap_or_default(),
        spec.claim_ref.and_then(|claim| claim.uid),
    )
}

/// The run's ConfigMap, which every run of a release has one of, says how it ended.
async fn report(scene: &Scene<'_>, ending: Ending) -> Result<()> {
    let client = scene.release.cluster.client.clone();
    let api = Api::<ConfigMap>::namespaced(client, &scene.release.namespace);
    let runs = ListParams::default().labels(names::RUN);
    let maps = api.list(&runs).await?.items;
    let ours = maps.into_iter().filter_map(|map| map.data).find(|data| {
        data.get("report.json")
            .is_some_and(|report| report.contains(&format!("{:?}", scene.namespace)))
    });
    let state = ours.and_then(|data| data.get("state").cloned());
    let wanted = match ending {
        Ending::Migrated => "complete",
        Ending::FailedEarly | Ending::FailedLate => "failed",
        Ending::Aborted => "aborted",
    };
    ensure!(
        state.as_deref() == Some(wanted),
        "the run's ConfigMap says {state:?}"
    );
    Ok(())
}

/// What the application had written on the source is at the beginning of what is on the
/// destination: nothing that it wrote while the copy was made is missing.
async fn no_line_is_lost(scene: &Scene<'_>, ends: &Ends) -> Result<()> {
    let cluster = &scene.release.cluster;
    let Some(bed) = &cluster.bed else {
        return Ok(());
    };
    let volumes = scene.volumes().await?;
    for (claim, pod) in pods(cluster, &scene.namespace, scene.kind).await? {
        if ends[&claim] != Ending::Migrated {
            continue;
        }
        let source = volumes
            .iter()
            .find(|volume| volume.name_any() == scene.sources[&claim])
            .and_then(|volume| volume.spec.as_ref())
            .context("the source volume is missing")?;
        let was = match &source.csi {
            Some(csi) => {
                await_detached(cluster, &scene.sources[&claim]).await?;
                in_image(&bed.csi_image(&csi.volume_handle)).await?
            }
            None => in_folder(source)?,
        };
        let is = cluster
            .exec(&scene.namespace, &pod, "cat /data/log")
            .await?;
        ensure!(
            is.len() > was.len() && is.starts_with(&was),
            "claim {claim} lost lines: {} bytes were written, {} are there",
            was.len(),
            is.len()
        );
    }
    Ok(())
}

/// The log on a volume that is a folder of the test bed.
fn in_folder(source: &PersistentVolumeSpec) -> Result<String> {
    let local = source.local.as_ref().map(|local| &local.path);
    let path = local.or(source.host_path.as_ref().map(|host| &host.path));
    let path = Path::new(path.context("the source is no folder")?).join("log");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The log on a volume that is an ext4 image of the test bed, which nobody has mounted.
async fn in_image(image: &Path) -> Result<String> {
    let read = Command::new("debugfs")
        .args(["-R", "cat /log"])
        .arg(image)
        .output()
        .await
        .context("debugfs")?;
    let said = String::from_utf8_lossy(&read.stderr);
    ensure!(read.status.success(), "debugfs says {said}");
    Ok(String::from_utf8(read.stdout)?)
}
