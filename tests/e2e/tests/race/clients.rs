//! The eight clients, and what they ask for.
//!
//! Pods and claims are really created, and workloads really scaled. What would destroy something
//! where it is not fenced is a dry run, which goes through all of admission.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use pvmigrate_e2e::{Test, claim, mount, pod};
use pvmigrate_record::names;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::history::Fenced;
use crate::{CLAIMS, DEPLOYMENTS};

pub struct Shared {
    user: Client,
    /// An administrator: volumes are nobody else's.
    admin: Client,
    namespace: String,
    image: String,
    classes: [String; 2],
    fenced: Fenced,
    over: AtomicBool,
}

/// How many, by what was asked; and answers that must not have been.
#[derive(Default)]
pub struct Attempts {
    refused: BTreeMap<&'static str, usize>,
    passed: BTreeMap<&'static str, usize>,
    pub wrong: Vec<String>,
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} attempts, refused {:?}, passed {:?}, {} wrong",
            self.all(),
            self.refused,
            self.passed,
            self.wrong.len()
        )
    }
}

impl Attempts {
    pub fn all(&self) -> usize {
        self.refused.values().chain(self.passed.values()).sum()
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.refused, &other.refused),
            (&mut self.passed, &other.passed),
        ] {
            for (what, count) in theirs {
                *mine.entry(what).or_default() += count;
            }
        }
        self.wrong.extend(other.wrong.iter().cloned());
    }

    /// Takes an answer in; whether the request was let pass.
    fn take<T>(&mut self, what: &'static str, answer: &kube::Result<T>) -> bool {
        match answer {
            Ok(_) => {
                *self.passed.entry(what).or_default() += 1;
                return true;
            }
            // The fence, or an object that is there, is not there, or has changed.
            Err(kube::Error::Api(status)) if status.code == 403 => {
                if !status.message.contains("pvmigrate") {
                    self.wrong.push(format!("{what}: {}", status.message));
                }
            }
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
            // A webhook that is behind answers with an error, which refuses.
            Err(kube::Error::Api(status)) if status.message.contains("fence.pvmigrate.io") => {}
            Err(error) => self.wrong.push(format!("{what}: {error}")),
        }
        *self.refused.entry(what).or_default() += 1;
        false
    }
}

impl Shared {
    pub fn new(test: &Test, user: &Client, classes: &[String; 2], fenced: Fenced) -> Self {
        Self {
            user: user.clone(),
            admin: test.cluster.client.clone(),
            namespace: test.namespace.clone(),
            image: test.cluster.tools_image.clone(),
            classes: classes.clone(),
            fenced,
            over: AtomicBool::new(false),
        }
    }

    pub fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.user.clone(), &self.namespace)
    }

    fn is_fenced(&self, claim: &str) -> bool {
        let fenced = self.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fenced = fenced.values();
        fenced.any(|(name, is)| name == claim && *is)
    }

    /// Whether the claim's record, read now, says that it is still fenced.
    async fn is_still_fenced(&self, volume: &str) -> bool {
        let api = Api::<PersistentVolume>::all(self.admin.clone());
        let Ok(volume) = api.get(volume).await else {
            return false;
        };
        let record = volume.annotations().get(names::RECORD);
        let record = record.and_then(|json| pvmigrate_record::Record::parse(json).ok());
        record.is_some_and(|record| record.fence.on)
    }
}

pub struct Clients(Vec<JoinHandle<Attempts>>);

impl Clients {
    pub async fn end(self, shared: &Shared) -> Result<Attempts> {
        let mut all = Attempts::default();
        for client in self.0 {
            all.add(&client.await?);
        }
        // What was admitted at the end, before it could be deleted.
        let pods = Api::<Pod>::namespaced(shared.admin.clone(), &shared.namespace);
        let guests = kube::api::ListParams::default().labels("race=guest");
        let now = DeleteParams::default().grace_period(0);
        pods.delete_collection(&now, &guests).await?;
        Ok(all)
    }
}

pub fn start(shared: &Arc<Shared>) -> Clients {
    let mut all = Vec::new();
    for number in 0..4 {
        all.push(tokio::spawn(mount_claims(shared.clone(), number)));
    }
    all.push(tokio::spawn(scale_up(shared.clone())));
    all.push(tokio::spawn(take_names(shared.clone())));
    all.push(tokio::spawn(touch_volumes(shared.clone())));
    all.push(tokio::spawn(touch_workloads(shared.clone())));
    Clients(all)
}

/// Pods that nobody ever schedules. What is admitted is deleted at once: it would be in the way of
/// the freeze.
async fn mount_claims(shared: Arc<Shared>, number: usize) -> Attempts {
    let (mut attempts, api) = (Attempts::default(), shared.api::<Pod>());
    let mut round = number;
    while !shared.over.load(Ordering::Relaxed) {
        round += 1;
        let claim = CLAIMS[round % CLAIMS.len()];
        let name = format!("guest-{number}-{round}");
        let mut wanted = pod(&name, &shared.image, "true", &[mount(claim)]);
        wanted.metadata.labels = Some(BTreeMap::from([("race".into(), "guest".into())]));
        if let Some(spec) = &mut wanted.spec {
            spec.scheduler_name = Some("nobody".into());
        }
        let answer = api.create(&PostParams::default(), &wanted).await;
        if attempts.take("pods create", &answer) {
            let now = DeleteParams::default().grace_period(0);
            let _ = api.delete(&name, &now).await;
            // It is not fenced: a few are enough to have one at every moment.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    attempts
}

/// More replicas, on the object and on its scale; taken back where that passed.
async fn scale_up(shared: Arc<Shared>) -> Attempts {
    let (mut attempts, params) = (Attempts::default(), PatchParams::default());
    let api = shared.api::<Deployment>();
    let replicas = |count: i32| Patch::Merge(json!({"spec": {"replicas": count}}));
    let mut round = 0;
    while !shared.over.load(Ordering::Relaxed) {
        round += 1;
        let name = DEPLOYMENTS[round % DEPLOYMENTS.len()];
        let passed = if round % 2 == 0 {
            let answer = api.patch_scale(name, &params, &replicas(2)).await;
            attempts.take("scale up", &answer)
        } else {
            let answer = api.patch(name, &params, &replicas(2)).await;
            attempts.take("replicas up", &answer)
        };
        if passed {
            // It was not stopped yet. Pods that come and go all the time would only slow it down.
            let answer = api.patch_scale(name, &params, &replicas(1)).await;
            attempts.take("scale back", &answer);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    attempts
}

/// Claims under the names, on either class: they exist, or are fenced.
async fn take_names(shared: Arc<Shared>) -> Attempts {
    let (mut attempts, api) = (Attempts::default(), shared.api::<PersistentVolumeClaim>());
    let mut round = 0;
    while !shared.over.load(Ordering::Relaxed) {
        round += 1;
        let name = CLAIMS[round % CLAIMS.len()];
        let wanted = claim(name, &shared.classes[round % 2]);
        let answer = api.create(&PostParams::default(), &wanted).await;
        if attempts.take("claims create", &answer) {
            let why = format!("claim {name} was made by somebody else");
            attempts.wrong.push(why);
        }
        let dry = DeleteParams::default().dry_run();
        let volume = volume_of(&shared, name).await;
        judged(
            &shared,
            &mut attempts,
            "claims delete",
            name,
            volume.as_deref(),
            async { api.delete(name, &dry).await.map(drop) },
        )
        .await;
    }
    attempts
}

/// The volumes of the claims: their policy, and the volumes themselves.
async fn touch_volumes(shared: Arc<Shared>) -> Attempts {
    let mut attempts = Attempts::default();
    let api = Api::<PersistentVolume>::all(shared.admin.clone());
    let mut round = 0;
    while !shared.over.load(Ordering::Relaxed) {
        round += 1;
        let name = CLAIMS[round % CLAIMS.len()];
        let Some(volume) = volume_of(&shared, name).await else {
            continue;
        };
        judged(
            &shared,
            &mut attempts,
            "volumes delete",
            name,
            Some(&volume),
            async {
                let dry = DeleteParams::default().dry_run();
                api.delete(&volume, &dry).await.map(drop)
            },
        )
        .await;
        judged(
            &shared,
            &mut attempts,
            "volumes policy",
            name,
            Some(&volume),
            async {
                let recycle = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
                api.patch(&volume, &dry_patch(), &Patch::Merge(recycle))
                    .await
                    .map(drop)
            },
        )
        .await;
    }
    attempts
}

/// Workloads that are stopped: deleted, and their marks dropped.
async fn touch_workloads(shared: Arc<Shared>) -> Attempts {
    let mut attempts = Attempts::default();
    let (deployments, sets) = (shared.api::<Deployment>(), shared.api::<StatefulSet>());
    let unmark: Value = json!({"metadata": {"annotations": {names::FROZEN: null}}});
    let dry = DeleteParams::default().dry_run();
    let mut round = 0;
    while !shared.over.load(Ordering::Relaxed) {
        round += 1;
        let name = DEPLOYMENTS[round % DEPLOYMENTS.len()];
        let answer = deployments.delete(name, &dry).await;
        attempts.take("workloads delete", &answer);
        let answer = sets.delete("db", &dry).await;
        attempts.take("workloads delete", &answer);
        let answer = deployments
            .patch(name, &dry_patch(), &Patch::Merge(&unmark))
            .await;
        attempts.take("marks", &answer);
    }
    attempts
}

/// A request that must not pass if the claim was fenced before it and is after it.
async fn judged(
    shared: &Shared,
    attempts: &mut Attempts,
    what: &'static str,
    claim: &str,
    volume: Option<&str>,
    request: impl Future<Output = kube::Result<()>>,
) {
    let before = shared.is_fenced(claim);
    let answer = request.await;
    if attempts.take(what, &answer)
        && before
        && let Some(volume) = volume
        && shared.is_still_fenced(volume).await
    {
        let why = format!("{what} of {claim} ({volume}) passed while it was fenced");
        attempts.wrong.push(why);
    }
}

/// The volume that the claim is on, its source until it is gone.
async fn volume_of(shared: &Shared, claim: &str) -> Option<String> {
    let api = Api::<PersistentVolumeClaim>::namespaced(shared.admin.clone(), &shared.namespace);
    api.get_opt(claim).await.ok()??.spec?.volume_name
}

fn dry_patch() -> PatchParams {
    PatchParams {
        dry_run: true,
        ..PatchParams::default()
    }
}
