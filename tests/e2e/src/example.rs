//! The example application: a StatefulSet of two and two Deployments, each pod with a claim of its
//! own, and a line in its volume every tenth of a second.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

use crate::{Cluster, Mount, claim, deployment, stateful_set, wait_for};

/// A claim's name may have 253 characters; what pvmigrate makes of it must fit into 63.
pub const LONG: &str = "a-claim-whose-name-has-ninety-six-characters-which-is-more-than-a-label-or-a-pod-name-may-have-x";

/// The claims of the application.
pub const CLAIMS: [&str; 4] = ["data-db-0", "data-db-1", "web", LONG];

/// Each line is a number and the time. The log goes on from its last line, and what was written is
/// said on stdout, where it can be heard outside the volume.
pub static WRITE: LazyLock<String> = LazyLock::new(|| {
    let each = "echo \"$line\" >>/data/log && echo \"$line\"";
    numbering("", "/data/log", each, "0.1")
});

/// A shell that does something with a next `$line` again and again, with a pause in seconds, after
/// it has done something `first`. The numbers go on from the last line of this log.
///
/// No process is started for a line: twenty shells that start `date` and `sleep` ten times a second
/// would take a whole processor of those that a measurement is about.
pub fn numbering(first: &str, log: &str, each: &str, pause: &str) -> String {
    format!(
        "exec bash -c '
trap \"exit 0\" TERM
exec 3<> <(:)
{first}
n=$(tail -n 1 {log} 2>/dev/null | cut -d \" \" -f 1)
n=${{n:-0}}
while :; do
  n=$((n + 1))
  line=\"$n $EPOCHREALTIME\"
  {each}
  read -rt {pause} -u 3
done'"
    )
}

/// Creates the application, its claims in this class, and waits until all its pods are Ready.
pub async fn deploy(cluster: &Cluster, namespace: &str, class: &str) -> Result<()> {
    let image = &cluster.tools_image;
    let at_data = |claim: &str| {
        [Mount {
            claim: claim.into(),
            path: "/data".into(),
        }]
    };
    let post = PostParams::default();
    let claims = Api::<PersistentVolumeClaim>::namespaced(cluster.client.clone(), namespace);
    let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), namespace);
    for (app, name) in [("web", "web"), ("files", LONG)] {
        let mut wanted = claim(name, class);
        wanted.labels_mut().insert("team".into(), "shop".into());
        wanted
            .annotations_mut()
            .insert("example.com/backup".into(), "daily".into());
        claims.create(&post, &wanted).await?;
        deployments
            .create(&post, &deployment(app, image, &WRITE, &at_data(name)))
            .await?;
    }
    let sets = Api::<StatefulSet>::namespaced(cluster.client.clone(), namespace);
    sets.create(
        &post,
        &stateful_set("db", 2, class, image, &WRITE, &at_data("data")),
    )
    .await?;
    pods(cluster, namespace, &CLAIMS).await?;
    Ok(())
}

/// The pod that mounts each of these claims; waits until all are Ready.
pub async fn pods(
    cluster: &Cluster,
    namespace: &str,
    claims: &[&str],
) -> Result<BTreeMap<String, String>> {
    let api = Api::<Pod>::namespaced(cluster.client.clone(), namespace);
    let what = format!("the pods of {namespace} to be Ready");
    wait_for(&what, Duration::from_secs(180), async || {
        let all = api.list(&ListParams::default()).await?;
        let ready: BTreeMap<String, String> = all
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
            .flat_map(|pod| mounted(pod).map(|claim| (claim, pod.name_any())))
            .collect();
        for claim in claims {
            ensure!(ready.contains_key(*claim), "no Ready pod mounts {claim}");
        }
        Ok(ready)
    })
    .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn mounted(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()))
}

/// One line of an application's log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub number: u64,
    /// Seconds since the epoch.
    pub at: f64,
}

/// Reads lines as [`WRITE`] writes them; fails at the first that is none.
pub fn lines(text: &str) -> Result<Vec<Line>> {
    let line = |text: &str| {
        let (number, at) = text.split_once(' ')?;
        Some(Line {
            number: number.parse().ok()?,
            at: at.parse().ok()?,
        })
    };
    text.lines()
        .map(|text| line(text).with_context(|| format!("this is no line of the log: {text:?}")))
        .collect()
}

/// The longest time between two lines, in seconds; fails if a line is missing.
pub fn longest_silence(log: &[Line]) -> Result<f64> {
    ensure!(log.len() > 1, "the log has {} lines", log.len());
    let mut longest: f64 = 0.0;
    for pair in log.windows(2) {
        let [before, after] = [pair[0], pair[1]];
        ensure!(
            after.number == before.number + 1,
            "line {} is followed by {}",
            before.number,
            after.number
        );
        longest = longest.max(after.at - before.at);
    }
    Ok(longest)
}
