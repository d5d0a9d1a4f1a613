//! The main scenario: every application, all its data, there and back again.

mod sources;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::ResourceExt;
use pvmigrate_e2e::example::{self, CLAIMS};
use pvmigrate_e2e::{Bound, Release, Test, WAIT, bound, leftovers, run_test, tree};

#[tokio::test]
async fn all_claims_move_with_everything_in_them_and_back_again() {
    run_test("there-and-back", async |test| {
        let [source, dest] = test.cluster.classes.clone();
        example::deploy(&test.cluster, &test.namespace, &source).await?;
        let began = Instant::now();
        for pod in pods(test).await?.into_values() {
            test.exec(&pod, &format!("cd /data && {}", tree::FILL))
                .await?;
        }
        println!("filled in {:?}", began.elapsed());
        let namespace = test.new_namespace("release").await?;
        let there = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        migrate(test, &there, &source, &dest).await?;

        let namespace = test.new_namespace("release-back").await?;
        let classes = [dest.clone(), source.clone()];
        let back = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
        migrate(test, &back, &dest, &source).await
    })
    .await;
}

/// One run with everything that must hold before and after it, from `helm install` to
/// `helm uninstall`.
async fn migrate(test: &Test, release: &Release, from: &str, to: &str) -> Result<()> {
    let (before, trees) = (volumes(test, from).await?, listings(test).await?);
    let began = Instant::now();
    release.helm("install", &WAIT).await?.success()?;
    println!("{from} to {to}: helm install took {:?}", began.elapsed());
    let end = release.ended().await?.expect(0, &["the Job ends"])?;
    ensure!(end.pods == 1, "the Job took {} pods", end.pods);

    let (after, moved) = (volumes(test, to).await?, listings(test).await?);
    for (claim, listing) in &trees {
        if let Some(difference) = tree::difference(listing, &moved[claim]) {
            anyhow::bail!("claim {claim}: {difference}");
        }
    }
    for claim in CLAIMS {
        compare(&before[claim], &after[claim]).with_context(|| format!("claim {claim}"))?;
    }
    holes_are_kept(test).await?;
    workloads_are_as_before(test).await?;
    leftovers::none_of_the_run(release, &test.cluster, &test.namespace).await?;
    sources::are_left_to_be_disposed_of(test, release, &before).await?;

    release.uninstall().await?;
    leftovers::none_of_the_release(release, &test.cluster).await
}

async fn pods(test: &Test) -> Result<BTreeMap<String, String>> {
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await
}

async fn volumes(test: &Test, class: &str) -> Result<BTreeMap<&'static str, Bound>> {
    let mut all = BTreeMap::new();
    for claim in CLAIMS {
        let both = bound(&test.cluster, &test.namespace, claim).await?;
        ensure!(
            both.class() == class,
            "claim {claim} is of class {}",
            both.class()
        );
        all.insert(claim, both);
    }
    Ok(all)
}

/// A listing of the tree on each claim, by tools that are not ours.
async fn listings(test: &Test) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (claim, pod) in pods(test).await? {
        let listing = test
            .exec(&pod, &format!("cd /data && {}", tree::LIST))
            .await?;
        // A listing that shows nothing would be equal to any other.
        for part in [
            "security.capability=0x",
            "user.note=",
            "user:7:r--",
            "bytes-M-^?M-~",
            "|p|640|3:4|",
            "suid|f|6755|5:6|",
            "./hard:./deep/er/hard-too^@./hard^@",
        ] {
            ensure!(
                listing.contains(part),
                "{claim}: the listing does not show {part}:\n{listing}"
            );
        }
        all.insert(claim, listing);
    }
    Ok(all)
}

/// Files of 32 MB and 5 MB of which nearly nothing is set aside.
async fn holes_are_kept(test: &Test) -> Result<()> {
    for (claim, pod) in pods(test).await? {
        let printed = test
            .exec(&pod, &format!("cd /data && {}", tree::HOLES))
            .await?;
        for line in printed.lines() {
            let blocks: u64 = line
                .split(' ')
                .nth(1)
                .context("a line without blocks")?
                .parse()?;
            ensure!(
                blocks * 512 <= 128 << 10,
                "{claim}: a hole was filled: {line}"
            );
        }
    }
    Ok(())
}

/// What must be the same, and what must not.
fn compare(before: &Bound, after: &Bound) -> Result<()> {
    let (was, is) = (&before.claim, &after.claim);
    ensure!(was.uid() != is.uid(), "it is the same object as before");
    ensure!(
        before.volume.uid() != after.volume.uid(),
        "it is on its old volume"
    );
    ensure!(
        was.labels() == is.labels(),
        "labels {:?} became {:?}",
        was.labels(),
        is.labels()
    );
    let others = |claim: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let system = [
            "pv.kubernetes.io/",
            "volume.kubernetes.io/",
            "volume.beta.kubernetes.io/",
        ];
        let kept = claim
            .iter()
            .filter(|(key, _)| !system.iter().any(|s| key.starts_with(s)));
        kept.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let (was, is) = (others(was.annotations()), others(is.annotations()));
    ensure!(was == is, "annotations {was:?} became {is:?}");
    ensure!(
        after.reclaim_policy() == "Delete",
        "the policy is {}",
        after.reclaim_policy()
    );
    let of = |bound: &Bound| {
        bound
            .claim
            .spec
            .clone()
            .map(|spec| (spec.access_modes, spec.resources))
    };
    ensure!(
        of(before) == of(after),
        "{:?} became {:?}",
        of(before),
        of(after)
    );
    Ok(())
}

async fn workloads_are_as_before(test: &Test) -> Result<()> {
    let set = test.api::<StatefulSet>().get("db").await?;
    let wanted = set.spec.and_then(|spec| spec.replicas);
    let ready = set.status.and_then(|status| status.ready_replicas);
    ensure!(
        (wanted, ready) == (Some(2), Some(2)),
        "db: {ready:?} of {wanted:?} are Ready"
    );
    for name in ["web", "files"] {
        let deployment = test.api::<Deployment>().get(name).await?;
        let wanted = deployment.spec.and_then(|spec| spec.replicas);
        let ready = deployment.status.and_then(|status| status.ready_replicas);
        ensure!(
            (wanted, ready) == (Some(1), Some(1)),
            "{name}: {ready:?} of {wanted:?} are Ready"
        );
    }
    Ok(())
}
