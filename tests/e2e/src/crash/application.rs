//! The application whose claims are migrated, and what is to be seen of it before and after.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::{Cluster, claim, deployment, mount, stateful_set, wait_for};

/// Makes files once, of random contents: an application that starts on an empty volume makes
/// others. Then writes a line at a time, for as long as it runs.
const SCRIPT: &str = r#"
trap 'exit 0' TERM
cd /data
if [ ! -e tree ]; then
    mkdir -p tree/deep
    head -c 300000 /dev/urandom >tree/random
    head -c 5000 /dev/urandom >tree/deep/own
    chown 1000:2000 tree/deep/own
    chmod 4750 tree/deep/own
    ln -s random tree/link
    ln tree/random tree/hard
    : >tree/empty
    touch -d '2001-02-03 04:05:06.789' tree/deep/own tree/deep
fi
boot=$(cat /proc/sys/kernel/random/uuid)
while :; do
    n=$((n + 1))
    echo "$boot $n" >>log
    sleep 0.2 & wait
done
"#;

/// Content, owner, mode and time of everything but the log, which grows, and what a file system makes
/// for itself.
const LISTING: &str = "cd /data && while [ ! -e log ]; do sleep 0.1; done; \
    find . -path ./lost+found -prune -o -printf '%p %y %m %U:%G %l ' \
    \\( -type d -o -printf '%n ' \\) \\( -name log -printf '\\n' -o -type f -printf '%s %T@\\n' \
    -o -printf '%T@\\n' \\) | sort; find . -type f ! -name log -exec sha256sum {} + | sort";

/// What runs on the claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One pod, one claim.
    Deployment,
    /// The same, on volumes that are attached to nodes; only on the test bed.
    Attached,
    /// Two pods with a claim each, which move one after the other, the second first.
    StatefulSet,
}

/// What must be the same after a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub labels: BTreeMap<String, String>,
    /// But for those that are about the claim's volume.
    pub annotations: BTreeMap<String, String>,
    pub listing: String,
}

impl Kind {
    /// The claims, each with the label that its pod alone has.
    pub fn claims(self) -> &'static [&'static str] {
        match self {
            Self::Deployment | Self::Attached => &["data"],
            Self::StatefulSet => &["data-app-0", "data-app-1"],
        }
    }

    /// The StorageClasses that they move between.
    pub fn classes(self, cluster: &Cluster) -> [String; 2] {
        match self {
            Self::Attached => ["csi-a", "csi-b"].map(String::from),
            Self::Deployment | Self::StatefulSet => cluster.classes.clone(),
        }
    }

    pub async fn create(self, cluster: &Cluster, namespace: &str) -> Result<()> {
        let (client, post) = (cluster.client.clone(), PostParams::default());
        let (image, mounts) = (&cluster.tools_image, [mount("data")]);
        let [class, _] = self.classes(cluster);
        match self {
            Self::Deployment | Self::Attached => {
                let mut data = claim("data", &class);
                data.metadata.labels = Some(BTreeMap::from([("team".into(), "blue".into())]));
                data.metadata.annotations =
                    Some(BTreeMap::from([("example.org/note".into(), "kept".into())]));
                Api::namespaced(client.clone(), namespace)
                    .create(&post, &data)
                    .await?;
                Api::namespaced(client, namespace)
                    .create(&post, &deployment("app", image, SCRIPT, &mounts))
                    .await?;
            }
            Self::StatefulSet => {
                let mut set = stateful_set("app", 2, &class, image, SCRIPT, &mounts);
                if let Some(spec) = &mut set.spec {
                    spec.pod_management_policy = Some("Parallel".into());
                }
                Api::namespaced(client, namespace)
                    .create(&post, &set)
                    .await?;
            }
        }
        Ok(())
    }

    /// The workload as JSON, whatever its kind.
    pub async fn workload(self, client: &Client, namespace: &str) -> Result<Value> {
        Ok(match self {
            Self::Deployment | Self::Attached => {
                let api = Api::<Deployment>::namespaced(client.clone(), namespace);
                serde_json::to_value(api.get("app").await?)?
            }
            Self::StatefulSet => {
                let api = Api::<StatefulSet>::namespaced(client.clone(), namespace);
                serde_json::to_value(api.get("app").await?)?
            }
        })
    }
}

/// The application's pods, each under the claim that it mounts, once all are there, Ready, and
/// alone in their namespace.
pub async fn pods(cluster: &Cluster, namespace: &str, kind: Kind) -> Result<Vec<(String, String)>> {
    let api = Api::<Pod>::namespaced(cluster.client.clone(), namespace);
    let what = format!("the pods of {namespace} to be Ready, and alone");
    wait_for(&what, Duration::from_secs(60), async || {
        let pods = api.list(&ListParams::default()).await?.items;
        let mut found = Vec::new();
        for pod in &pods {
            let conditions = pod
                .status
                .iter()
                .flat_map(|s| s.conditions.iter().flatten());
            let ready = conditions
                .into_iter()
                .any(|c| c.type_ == "Ready" && c.status == "True");
            ensure!(
                ready && pod.metadata.deletion_timestamp.is_none(),
                "pod {} is not Ready",
                pod.name_any()
            );
            let volumes = pod
                .spec
                .iter()
                .flat_map(|spec| spec.volumes.iter().flatten());
            let claim = volumes
                .filter_map(|volume| volume.persistent_volume_claim.as_ref())
                .map(|source| source.claim_name.clone())
                .next();
            found.push((claim.context("a pod without a claim")?, pod.name_any()));
        }
        found.sort();
        let claims: Vec<&str> = found.iter().map(|(claim, _)| claim.as_str()).collect();
        ensure!(claims == kind.claims(), "there are pods of {claims:?}");
        Ok(found)
    })
    .await
}

/// The claims as they are, with what is in them, by name.
pub async fn look(
    cluster: &Cluster,
    namespace: &str,
    kind: Kind,
) -> Result<BTreeMap<String, Seen>> {
    let mut seen = BTreeMap::new();
    for (name, pod) in pods(cluster, namespace, kind).await? {
        let api = Api::<PersistentVolumeClaim>::namespaced(cluster.client.clone(), namespace);
        let found = api.get(&name).await?;
        let of_volume = |key: &str| key.contains("volume.") || key.starts_with("pv.kubernetes.io");
        let annotations = found.annotations().clone().into_iter();
        seen.insert(
            name,
            Seen {
                labels: found.labels().clone(),
                annotations: annotations.filter(|(key, _)| !of_volume(key)).collect(),
                listing: cluster.exec(namespace, &pod, LISTING).await?,
            },
        );
    }
    Ok(seen)
}
