//! What is refused before anything is touched: a clear sentence each, an exit code that installers
//! can read, and nothing changed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    Local, Release, Test, claim, deployment, example, leftovers, mount, pod, program, run_test,
    stateful_set, stay,
};
use pvmigrate_record::names;
use serde_json::json;

/// What a refused run says last.
const UNCHANGED: &str = "nothing was changed";

#[tokio::test]
async fn all_that_is_wrong_is_said_at_once_and_classes_and_namespaces_by_name() {
    run_test("refused-words", async |test| {
        test.create(&claim("data", &test.cluster.classes[0]))
            .await?;
        let classes = [test.cluster.classes[0].clone(), "no-such-class".into()];
        let names = [test.namespace.as_str(), "no-such-namespace"];
        let namespace = test.new_namespace("release").await?;
        let release = Release::between(&classes, &test.cluster, &namespace, &names);
        release.start(&[]).await?;
        let end = release.ended().await?;
        end.expect(
            3,
            &[
                "destSC: StorageClass no-such-class does not exist; there are ",
                "namespaces: namespace no-such-namespace does not exist",
                "preflight refused for 2 reasons; nothing was changed",
            ],
        )?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn equal_classes_are_refused_by_the_chart_and_by_the_job() {
    run_test("refused-equal", async |test| {
        let class = test.cluster.classes[0].clone();
        let classes = [class.clone(), class.clone()];
        let release =
            Release::between(&classes, &test.cluster, &test.namespace, &[&test.namespace]);
        let refused = release.helm("install", &[]).await?;
        let sentence =
            format!("sourceSC and destSC are both {class:?}: name two different StorageClasses");
        ensure!(
            refused.code == Some(1) && refused.stderr.contains(&sentence),
            "{refused:?}"
        );

        let environment = [
            ("PVMIGRATE_SOURCE_SC", class.as_str()),
            ("PVMIGRATE_DEST_SC", &class),
            ("PVMIGRATE_RELEASE", "pvmigrate"),
            ("PVMIGRATE_RELEASE_NAMESPACE", &test.namespace),
            ("PVMIGRATE_POD", "local"),
            ("PVMIGRATE_IMAGE", &test.cluster.image),
            ("PVMIGRATE_WEBHOOK_SERVICE", "none"),
            ("PVMIGRATE_CA_SECRET", "none"),
        ];
        let log = std::env::temp_dir().join(format!("{}.log", test.namespace));
        let mut job = Local::start(&program("pvmigrate")?, &["run"], &environment, &log)?;
        let status = job.wait(Duration::from_secs(20)).await?;
        let said = job.tail();
        std::fs::remove_file(&log)?;
        ensure!(
            status.code() == Some(2) && said.contains(&sentence),
            "{status}: {said}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn without_claims_there_is_nothing_to_do() {
    run_test("refused-nothing", async |test| {
        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        release.ended().await?.expect(
            0,
            &["no claim of this StorageClass is to be moved; nothing to do"],
        )?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await?;
        leftovers::none_of_the_release(&release, &test.cluster).await
    })
    .await;
}

#[tokio::test]
async fn a_bare_pod_is_named_and_so_is_a_namespace_that_admits_no_mover() {
    run_test("refused-pod", async |test| {
        test.create(&claim("data", &test.cluster.classes[0])).await?;
        let image = &test.cluster.tools_image;
        test.create(&pod("loner", image, &stay("echo kept >/data/file"), &[mount("data")])).await?;
        test.await_ready("loner").await?;
        let before = versions(test).await?;
        let bare = format!(
            "pod {}/loner mounts claim data and has no owner: nothing would make it again; set barePods to recreate, delete it, or leave its namespace out",
            test.namespace
        );
        refused(test, &[&bare, UNCHANGED]).await?;
        ensure!(versions(test).await? == before, "something was changed");

        // The pod that is there stays; the next one would not be admitted.
        enforce_restricted(test).await?;
        let before = versions(test).await?;
        test.cluster
            .kubectl(&["delete", "pod", "loner", "--namespace", &test.namespace, "--wait"])
            .await?
            .success()?;
        let restricted = format!("namespace {} does not admit a mover: ", test.namespace);
        refused(test, &[&restricted, "violates PodSecurity", "restricted", UNCHANGED]).await?;
        ensure!(versions(test).await? == before, "something was changed");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_wave_that_is_no_number_and_a_budget_that_allows_nothing_are_named() {
    run_test("refused-plan", async |test| {
        let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
        let mut late = claim("late", class);
        late.annotations_mut()
            .insert(names::WAVE.into(), "last".into());
        test.create(&late).await?;
        let late = deployment("late", image, &stay(""), &[mount("late")]);
        test.create(&late).await?;
        let set = stateful_set("db", 2, class, image, &stay(""), &[mount("data")]);
        let budget = PodDisruptionBudget {
            metadata: ObjectMeta {
                name: Some("all".into()),
                ..ObjectMeta::default()
            },
            spec: Some(PodDisruptionBudgetSpec {
                min_available: Some(IntOrString::String("100%".into())),
                selector: set.spec.as_ref().map(|spec| spec.selector.clone()),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        };
        test.create(&set).await?;
        test.create(&budget).await?;
        let claims = ["late", "data-db-0", "data-db-1"];
        example::pods(&test.cluster, &test.namespace, &claims).await?;
        let before = versions(test).await?;
        let namespace = &test.namespace;
        refused(
            test,
            &[
                &format!("claim {namespace}/late has the annotation pvmigrate.io/wave with value \"last\": it has to be a whole number, the lower the earlier"),
                &format!("PodDisruptionBudget {namespace}/all never allows an eviction (minAvailable is 100%, of 2 pods), and StatefulSet {namespace}/db is moved pod by pod: loosen it, set hold.ignoreBudgets, or annotate the set with pvmigrate.io/freeze: scale"),
                "preflight refused for 2 reasons; nothing was changed",
            ],
        )
        .await?;
        ensure!(versions(test).await? == before, "something was changed");
        Ok(())
    })
    .await;
}

/// A release of its own runs into these sentences, and leaves nothing.
async fn refused(test: &Test, sentences: &[&str]) -> Result<()> {
    let namespace = test.new_namespace("release").await?;
    let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
    release.start(&[]).await?;
    release.ended().await?.expect(3, sentences)?;
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    release.uninstall().await?;
    leftovers::none_of_the_release(&release, &test.cluster).await
}

async fn enforce_restricted(test: &Test) -> Result<()> {
    let label =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    Api::<Namespace>::all(test.cluster.client.clone())
        .patch(
            &test.namespace,
            &PatchParams::default(),
            &Patch::Merge(label),
        )
        .await?;
    Ok(())
}

/// The resourceVersions of the test's claims and of the volumes behind them.
async fn versions(test: &Test) -> Result<BTreeMap<String, Option<String>>> {
    let claims = test
        .api::<PersistentVolumeClaim>()
        .list(&ListParams::default())
        .await?;
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    let mut all = BTreeMap::new();
    for claim in claims {
        let volume = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.clone());
        if let Some(volume) = volume {
            all.insert(
                volume.clone(),
                volumes.get(&volume).await?.resource_version(),
            );
        }
        all.insert(claim.name_any(), claim.resource_version());
    }
    Ok(all)
}
