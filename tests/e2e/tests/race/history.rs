//! What was written, in the order of the API server's writes: resourceVersions, no clock.
//!
//! The pods of the namespace and the records on the volumes are watched from before the first run.
//! A claim's window opens with the write of Fenced and closes with the write that takes its fence
//! off. Whatever pod was created in between got in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use pvmigrate_record::names;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::Record;
use tokio::task::JoinHandle;

use crate::CLAIMS;
use pvmigrate_e2e::wait_for;

/// A pod, as it was created.
#[derive(Clone)]
struct Created {
    name: String,
    version: u64,
    claims: Vec<String>,
}

/// A write of a record.
#[derive(Clone)]
struct Written {
    version: u64,
    volume: String,
    claim: String,
    phase: Phase,
    fenced: bool,
}

#[derive(Default)]
struct Seen {
    created: Vec<Created>,
    written: Vec<Written>,
}

/// By volume: the claim that its record is of, and whether that is fenced now.
pub type Fenced = Arc<Mutex<BTreeMap<String, (String, bool)>>>;

pub struct History {
    seen: Arc<Mutex<Seen>>,
    fenced: Fenced,
    client: Client,
    namespace: String,
    tasks: [JoinHandle<Result<()>>; 2],
}

/// What came of it.
pub struct Judged {
    pub windows: usize,
    pub intruders: Vec<String>,
    pods: usize,
    records: usize,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            windows,
            intruders,
            pods,
            records,
        } = self;
        write!(
            f,
            "{windows} fenced claims, {pods} consumers created before and after, {} while fenced; {records} writes of records",
            intruders.len()
        )
    }
}

impl History {
    pub async fn follow(client: &Client, namespace: &str) -> Result<Self> {
        let (seen, fenced) = (Arc::<Mutex<Seen>>::default(), Fenced::default());
        let pods = {
            let seen = seen.clone();
            watch(
                Api::<Pod>::namespaced(client.clone(), namespace),
                move |pod, is_new| {
                    if is_new && !is_mover(&pod) {
                        lock(&seen).created.push(created(&pod));
                    }
                },
            )
            .await?
        };
        let records = {
            let (seen, fenced, namespace) = (seen.clone(), fenced.clone(), namespace.to_string());
            watch(
                Api::<PersistentVolume>::all(client.clone()),
                move |volume, _| {
                    let record = volume.annotations().get(names::RECORD);
                    let record = record.and_then(|json| Record::parse(json).ok());
                    let Some(record) = record.filter(|r| r.claim.namespace == namespace) else {
                        return;
                    };
                    let holds = record.fence.on && record.phase >= Phase::Fenced;
                    let claim = record.claim.name;
                    fenced
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(volume.name_any(), (claim.clone(), holds));
                    lock(&seen).written.push(Written {
                        version: version(&volume),
                        volume: volume.name_any(),
                        claim,
                        phase: record.phase,
                        fenced: record.fence.on,
                    });
                },
            )
            .await?
        };
        Ok(Self {
            seen,
            fenced,
            client: client.clone(),
            namespace: namespace.into(),
            tasks: [pods, records],
        })
    }

    pub fn fenced(&self) -> Fenced {
        self.fenced.clone()
    }

    /// Waits until all claims have a record that says what is to be done with them.
    pub async fn planned(&self) -> Result<()> {
        wait_for(
            "the records of a run",
            Duration::from_secs(120),
            async || {
                let mut last = BTreeMap::new();
                for write in &lock(&self.seen).written {
                    last.insert(write.volume.clone(), write.phase);
                }
                let begun = last.values().filter(|phase| **phase != Phase::Done).count();
                ensure!(begun == CLAIMS.len(), "{last:?}");
                Ok(())
            },
        )
        .await
    }

    /// Waits until both watches have seen all that was written, and judges it.
    pub async fn end(self) -> Result<Judged> {
        // A write of our own, and its echo: everything before it was seen too.
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "the-end"},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "none"}]},
        }))?;
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.create(&kube::api::PostParams::default(), &pod).await?;
        tokio::time::timeout(Duration::from_secs(30), async {
            while !lock(&self.seen)
                .created
                .iter()
                .any(|pod| pod.name == "the-end")
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .context("the watch on the pods is behind")?;
        for task in self.tasks {
            if task.is_finished() {
                task.await??;
                bail!("a watch has ended");
            }
            task.abort();
        }
        let seen = lock(&self.seen);
        Ok(judge(&seen.created, &seen.written))
    }
}

fn judge(created: &[Created], written: &[Written]) -> Judged {
    // By volume: those of earlier runs keep their records.
    let mut open: BTreeMap<&str, u64> = BTreeMap::new();
    let mut windows: Vec<(&str, u64, u64)> = Vec::new();
    for write in written {
        let volume = write.volume.as_str();
        if write.fenced && write.phase == Phase::Fenced {
            open.entry(volume).or_insert(write.version);
        } else if !write.fenced
            && let Some(from) = open.remove(volume)
        {
            windows.push((&write.claim, from, write.version));
        }
    }
    let mut intruders = Vec::new();
    for pod in created {
        for (claim, from, to) in &windows {
            if pod.claims.iter().any(|c| c == claim) && (*from..*to).contains(&pod.version) {
                intruders.push(format!(
                    "pod {} at {}, claim {claim} fenced from {from} to {to}",
                    pod.name, pod.version
                ));
            }
        }
    }
    Judged {
        windows: windows.len(),
        intruders,
        pods: created.iter().filter(|pod| !pod.claims.is_empty()).count(),
        records: written.len(),
    }
}

/// Follows a kind from now on, without a gap: a watch that cannot go on from where it was ends.
async fn watch<K>(
    api: Api<K>,
    mut take: impl FnMut(K, bool) + Send + 'static,
) -> Result<JoinHandle<Result<()>>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    let now = api.list(&ListParams::default().limit(1)).await?;
    let mut from = now
        .metadata
        .resource_version
        .context("no resourceVersion")?;
    Ok(tokio::spawn(async move {
        loop {
            let params = WatchParams::default().timeout(240);
            let events = api.watch(&params, &from).await?;
            let mut events = events.boxed();
            while let Some(event) = events.try_next().await? {
                match event {
                    WatchEvent::Added(object) => {
                        from = object.resource_version().unwrap_or(from);
                        take(object, true);
                    }
                    WatchEvent::Modified(object) => {
                        from = object.resource_version().unwrap_or(from);
                        take(object, false);
                    }
                    WatchEvent::Deleted(object) => {
                        from = object.resource_version().unwrap_or(from);
                    }
                    WatchEvent::Bookmark(mark) => from = mark.metadata.resource_version,
                    WatchEvent::Error(status) => bail!("the watch has a gap: {status:?}"),
                }
            }
        }
    }))
}

fn is_mover(pod: &Pod) -> bool {
    let role = pod.labels().get(names::ROLE);
    role.is_some_and(|role| role == names::ROLE_MOVER)
}

fn created(pod: &Pod) -> Created {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let claims =
        volumes.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone()));
    Created {
        name: pod.name_any(),
        version: version(pod),
        claims: claims.collect(),
    }
}

fn version(object: &impl ResourceExt) -> u64 {
    let text = object.resource_version().unwrap_or_default();
    text.parse().unwrap_or_default()
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_pod_between_fenced_and_the_opening_write_got_in() -> Result<()> {
    let write = |version, phase, fenced| Written {
        version,
        volume: "v".into(),
        claim: "a".into(),
        phase,
        fenced,
    };
    let pod = |version, claim: &str| Created {
        name: format!("p{version}"),
        version,
        claims: vec![claim.into()],
    };
    let written = [
        write(10, Phase::Retained, true),
        write(12, Phase::Fenced, true),
        write(20, Phase::Rebound, true),
        write(22, Phase::Rebound, false),
        write(24, Phase::Restored, false),
    ];
    let created = [pod(11, "a"), pod(15, "b"), pod(21, "a"), pod(23, "a")];
    let judged = judge(&created, &written);
    ensure!(judged.windows == 1);
    ensure!(
        judged.intruders == ["pod p21 at 21, claim a fenced from 12 to 22"],
        "{:?}",
        judged.intruders
    );
    Ok(())
}
