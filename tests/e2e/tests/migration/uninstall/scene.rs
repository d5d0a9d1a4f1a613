//! What is uninstalled over: two applications with data, and how they have to be afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, stateful_set, wait_for,
};
use pvmigrate_record::names;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Outcome, Record};

pub const CLAIMS: [&str; 2] = ["data-db-0", "web"];

/// Data that is made once, of random contents: an application that starts on an empty volume has
/// other data. Told to end, it takes so many seconds.
fn application(ends_in: u32) -> String {
    format!(
        "cd \"$(ls -d /data /web 2>/dev/null)\"
[ -e own ] || head -c 200000 /dev/urandom >own
trap 'sleep {ends_in}; exit 0' TERM
while :; do sleep 0.1 & wait; done"
    )
}

/// What must be the same afterwards.
pub struct Before {
    /// The volumes of the claims.
    volumes: BTreeMap<String, String>,
    pub contents: BTreeMap<String, String>,
}

/// Two applications, each with a claim and data of its own, that take so many seconds to end.
pub async fn deploy(test: &Test, ends_in: u32) -> Result<Before> {
    let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
    let script = application(ends_in);
    let mut web = deployment("web", image, &script, &[mount("web")]);
    let mut db = stateful_set("db", 1, class, image, &script, &[mount("data")]);
    let templates = [
        web.spec.as_mut().map(|spec| &mut spec.template),
        db.spec.as_mut().map(|spec| &mut spec.template),
    ];
    for template in templates.into_iter().flatten() {
        let spec = template.spec.as_mut().context("a template without a pod")?;
        spec.termination_grace_period_seconds = Some(60);
    }
    test.create(&claim("web", class)).await?;
    test.create(&web).await?;
    test.create(&db).await?;
    let contents = contents(test).await?;
    let volumes = volumes(test).await?;
    Ok(Before { volumes, contents })
}

pub async fn release(test: &Test) -> Result<Release> {
    let namespace = test.new_namespace("release").await?;
    Ok(Release::new(&test.cluster, &namespace, &[&test.namespace]))
}

pub async fn contents(test: &Test) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (claim, pod) in example::pods(&test.cluster, &test.namespace, &CLAIMS).await? {
        let sum = "until [ -s /data/own -o -s /web/own ]; do sleep 0.1; done; cat /data/own /web/own 2>/dev/null | sha256sum";
        all.insert(claim, test.exec(&pod, sum).await?);
    }
    Ok(all)
}

async fn volumes(test: &Test) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for name in CLAIMS {
        let both = bound(&test.cluster, &test.namespace, name).await?;
        ensure!(both.reclaim_policy() == "Delete", "{name} is kept");
        all.insert(name.into(), both.volume.name_any());
    }
    Ok(all)
}

/// Uninstalls, and looks whether everything is as it was.
pub async fn gone_and_back(test: &Test, release: &Release, before: &Before) -> Result<()> {
    let began = Instant::now();
    release.uninstall().await?;
    println!("uninstalling took {:?}", began.elapsed());
    let now = volumes(test).await?;
    ensure!(before.volumes == now, "{:?} became {now:?}", before.volumes);
    ensure!(
        before.contents == contents(test).await?,
        "the data has changed"
    );
    let api = Api::<PersistentVolume>::all(test.cluster.client.clone());
    for (name, volume) in &before.volumes {
        let volume = api.get(volume).await?;
        let Some(json) = volume.annotations().get(names::RECORD) else {
            continue;
        };
        let record = Record::parse(json)?;
        ensure!(
            (record.phase, record.heading, record.outcome)
                == (Phase::Done, Heading::Source, Some(Outcome::Aborted)),
            "the record of {name} says {json}"
        );
    }
    let web = test.api::<Deployment>().get("web").await?;
    let replicas = web.spec.and_then(|spec| spec.replicas);
    ensure!(replicas == Some(1), "web has {replicas:?} replicas");
    wait_for(
        "no other volume to be left",
        Duration::from_secs(60),
        async || {
            let all = api.list(&ListParams::default()).await?.items;
            let ours = all.iter().filter(|volume| {
                let held = volume
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.claim_ref.as_ref());
                held.is_some_and(|held| held.namespace.as_ref() == Some(&test.namespace))
            });
            let names: Vec<String> = ours.map(ResourceExt::name_any).collect();
            ensure!(names.len() == CLAIMS.len(), "there are {names:?}");
            Ok(())
        },
    )
    .await?;
    let jobs = release.api::<Job>().list(&ListParams::default()).await?;
    ensure!(jobs.items.is_empty(), "a Job is left");
    leftovers::none_of_the_run(release, &test.cluster, &test.namespace).await?;
    leftovers::none_of_the_release(release, &test.cluster).await
}

/// Waits until one of the claims does not exist, and names it.
pub async fn a_claim_is_missing(test: &Test) -> Result<String> {
    wait_for(
        "a claim to be missing",
        Duration::from_secs(180),
        async || {
            for name in CLAIMS {
                let found = test.api::<PersistentVolumeClaim>().get_opt(name).await?;
                if found.is_none() {
                    return Ok(name.to_string());
                }
            }
            ensure!(false, "they are all there");
            Ok(String::new())
        },
    )
    .await
}
