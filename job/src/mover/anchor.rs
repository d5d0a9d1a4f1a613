//! Anchors: pods of ours that keep attached destinations in use on their node, from before the movers
//! end until the applications are back.
//!
//! ```text
//! mover    ───────────────────────┤ final pass, gone
//! anchor        ├─────────────────────────────────────────────┤
//! application ──────────────┤ stopped                  ├──────────── back
//! ```
//!
//! A kubelet mounts an attached volume only after it has reported it in use with its node's status,
//! every ten seconds by default, and forgets that as soon as no pod on the node has the volume. What
//! it has reported for the mover counts for the application's pod only if a pod of ours stays between
//! the two. It also draws the application back to that node; one that has to run elsewhere gets the
//! volume at once.
//!
//! An anchor mounts staging claims, which stay Terminating for as long as it is there. It is for speed
//! alone: whatever becomes of it, the migration goes on. A Job that takes over removes it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pvmigrate_record::names;

use crate::cluster::retried;
use crate::migration::Group;
use crate::pods::{PodWatch, Pods, mounted_claims};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{wait_gone, wait_seen_gone};

mod pod;

/// How long an anchor may take to run. Nobody is stopped yet, and without it all goes on as well.
const TO_RUN: Duration = Duration::from_secs(10);
/// How soon it ends when it is asked to: it has nothing to do.
const GRACE: u32 = 1;

/// An anchor, as it was made.
pub struct Anchor {
    pod: Pod,
    /// Where its volumes are.
    node: String,
    /// The claims whose new volumes it holds.
    claims: Vec<String>,
}

impl Anchor {
    pub fn holds(&self, claim: &str) -> bool {
        self.claims.iter().any(|held| held == claim)
    }
}

/// Makes the anchors of a group whose movers stand ready. They are waited for by [`stand`].
pub async fn set(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let pods = group.watch()?.now();
    let api: Api<Pod> = run.cluster.namespaced(&group.namespace);
    for wanted in pod::wanted(&run.config, &run.attaching, group, &pods) {
        match run.cluster.create(&api, &wanted.pod).await {
            Ok(pod) if pod.metadata.deletion_timestamp.is_some() => {
                without(group, "the anchor of before is still ending");
            }
            Ok(pod) => group.anchors.push(Anchor { pod, ..wanted }),
            Err(Stop::Refused(why)) => without(group, &why),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn without(group: &Group, why: &str) {
    tracing::info!(group = %group.name, %why, "its new volumes are not kept attached while it is stopped, which may cost seconds");
}

/// Waits until the anchors run; those that do not are given up.
pub async fn stand(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let Some(watch) = group.watch.clone().filter(|_| !group.anchors.is_empty()) else {
        return Ok(());
    };
    let names = group.anchors.iter().map(|anchor| anchor.pod.name_any());
    let names: Vec<String> = names.collect();
    let stand = watch.wait_until("anchors to run", TO_RUN, |pods| {
        let missing = names.iter().find(|name| !runs(pods, name));
        missing.map_or(Ok(()), |name| Err(format!("{name} does not run yet")))
    });
    match stand.await {
        Err(Stop::Refused(why)) => {
            without(group, &why);
            clear(run, group).await
        }
        other => other,
    }
}

fn runs(pods: &Pods, name: &str) -> bool {
    let anchor = pods.movers.get(name).filter(|anchor| !anchor.deleted);
    let status = anchor.and_then(|anchor| anchor.pod.status.as_ref());
    status.and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Asks the anchors of a group to end. The run waits for that when it has nothing else to do.
pub async fn lift(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let asked = ask(run, group).await?;
    run.lifted.lock().await.extend(asked);
    Ok(())
}

/// The node of each anchor, and the claims whose volumes it holds there: those that one node can have
/// at a time.
pub fn held(group: &Group) -> Vec<(String, BTreeSet<String>)> {
    let claims = group.claims.iter().map(|claim| &claim.record);
    let apart: BTreeSet<&String> = claims
        .filter(|record| !record.manifest.is_shared())
        .map(|record| &record.claim.name)
        .collect();
    let held = group.anchors.iter().map(|anchor| {
        let held = anchor.claims.iter().filter(|claim| apart.contains(claim));
        (anchor.node.clone(), held.cloned().collect())
    });
    held.collect()
}

/// Waits until a consumer is on another node than what it mounts is held on, or might be; says which.
pub async fn needed_elsewhere(held: &[(String, BTreeSet<String>)], watch: &PodWatch) -> String {
    let look = |pods: &Pods| {
        let gap = || "the pods are watched no more, so it may be anywhere".to_string();
        let found = held.iter().find_map(|held| elsewhere(held, pods));
        found.or_else(|| pods.gap.then(gap))
    };
    watch.shown(look).await
}

fn elsewhere((node, claims): &(String, BTreeSet<String>), pods: &Pods) -> Option<String> {
    claims.iter().find_map(|claim| {
        let mut present = pods.present(claim).filter(|pod| !pod.ended);
        let other = present.find_map(|pod| {
            let other = pod.node.as_ref().filter(|other| *other != node)?;
            Some((&pod.name, other))
        });
        let (pod, other) = other?;
        Some(format!(
            "pod {pod} is on node {other}, the new volume of claim {claim} is held on {node}"
        ))
    })
}

/// Removes the anchors of a group, and sees the staging claims go that went only for their sake.
pub async fn clear(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let asked = ask(run, group).await?;
    try_join_all(asked.iter().map(|pod| gone(run, &group.namespace, pod))).await?;
    Ok(())
}

async fn ask(run: &Run, group: &mut Group) -> Result<Vec<Pod>, Stop> {
    let api: Api<Pod> = run.cluster.namespaced(&group.namespace);
    let watch = group.watch.as_deref();
    let newest = |Anchor { pod, .. }: &Anchor| {
        let seen = watch.and_then(|watch| watch.mover(&pod.name_any()));
        let seen = seen.filter(|seen| seen.uid() == pod.uid());
        seen.unwrap_or_else(|| pod.clone())
    };
    let anchors: Vec<Pod> = group.anchors.iter().map(newest).collect();
    let asked = anchors.iter().map(|pod| {
        let pod = pod.clone();
        run.cluster.delete(&api, pod, Some(GRACE), |_| Ok(()))
    });
    try_join_all(asked).await?;
    group.anchors.clear();
    Ok(anchors)
}

/// Finds the anchors that an earlier Job has made for a group.
pub async fn find(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let api: Api<Pod> = run.cluster.namespaced(&group.namespace);
    let Some(first) = group.claims.first() else {
        return Ok(());
    };
    let labels = format!(
        "{}={},{}={}",
        names::ROLE,
        names::ROLE_ANCHOR,
        names::RUN,
        first.record.run
    );
    let params = ListParams::default().labels(&labels);
    let all = retried(|| api.list(&params)).await?;
    let anchors = all.items.into_iter().map(|pod| {
        let held = pod
            .annotations()
            .get(names::CLAIM)
            .cloned()
            .unwrap_or_default();
        Anchor {
            claims: held.lines().map(str::to_string).collect(),
            node: String::new(),
            pod,
        }
    });
    let is_ours = |anchor: &Anchor| {
        let mut claims = group.claims.iter();
        claims.any(|claim| anchor.holds(&claim.record.claim.name))
    };
    group.anchors = anchors.filter(is_ours).collect();
    Ok(())
}

/// Waits for those that were lifted, at the end of a run: what does not go then is only said.
pub async fn all_gone(run: &Run) {
    let lifted = std::mem::take(&mut *run.lifted.lock().await);
    if lifted.is_empty() {
        return;
    }
    // Most are gone by now.
    let label = format!("{}={}", names::ROLE, names::ROLE_ANCHOR);
    let params = ListParams::default().labels(&label);
    let all = run.cluster.all::<Pod>();
    let left: BTreeSet<String> = match retried(|| all.list(&params)).await {
        Ok(left) => left.items.iter().filter_map(ResourceExt::uid).collect(),
        Err(_) => lifted.iter().filter_map(ResourceExt::uid).collect(),
    };
    for pod in lifted {
        let namespace = pod.namespace().unwrap_or_default();
        let is_gone = pod.uid().is_none_or(|uid| !left.contains(&uid));
        let gone = if is_gone {
            staging_gone(run, &namespace, &pod).await
        } else {
            gone(run, &namespace, &pod).await
        };
        if let Err(why) = gone {
            tracing::warn!(%namespace, %why, "something of a migration is still there");
        }
    }
}

async fn gone(run: &Run, namespace: &str, pod: &Pod) -> Result<(), Stop> {
    let api: Api<Pod> = run.cluster.namespaced(namespace);
    let limit = run.config.freeze_limit();
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    wait_gone(&api, &name, &uid, limit).await?;
    staging_gone(run, namespace, pod).await
}

/// The staging claims that an anchor held go with it.
async fn staging_gone(run: &Run, namespace: &str, pod: &Pod) -> Result<(), Stop> {
    let limit = run.config.freeze_limit();
    let claims = run.cluster.claims_seen(namespace).await?;
    for claim in mounted_claims(pod) {
        let going = claims
            .get(&claim)
            .filter(|claim| claim.metadata.deletion_timestamp.is_some());
        if let Some(claim) = going {
            wait_seen_gone(&claims, claim, limit).await?;
        }
    }
    Ok(())
}
