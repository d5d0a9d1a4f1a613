//! How workloads are stopped, how many at a time, and how long things may take.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::Fault;
use pvmigrate_e2e::{Test, bound, claim, deployment, example, mount, run_test, stay, wait_for};
use serde_json::json;

use super::{outside, use_them};

#[tokio::test]
async fn a_value_has_everything_held_and_one_group_goes_after_the_other() {
    run_test("options-hold", async |test| {
        let [from, to] = &test.cluster.classes;
        let names = ["one", "other"];
        for name in names {
            test.create(&claim(name, from)).await?;
            let image = &test.cluster.tools_image;
            test.create(&deployment(name, image, &stay(""), &[mount(name)]))
                .await?;
        }
        example::pods(&test.cluster, &test.namespace, &names).await?;
        let before = specs(test, &names).await?;
        let said = outside(test, 0, &["run", "--freeze=hold", "--parallelism-groups=1"]).await?;
        for name in names {
            let sentence = format!("Deployment {}/{name} is held: ", test.namespace);
            ensure!(said.contains(&sentence), "{said}");
            let found = bound(&test.cluster, &test.namespace, name).await?;
            ensure!(found.class() == to, "{name} is of {}", found.class());
        }
        let after = specs(test, &names).await?;
        ensure!(before == after, "specs were touched: {before:?}, {after:?}");
        let staged: Vec<usize> = said
            .match_indices("phase=Staged")
            .map(|(at, _)| at)
            .collect();
        let first = said.find(" migrated ").context("nothing is migrated")?;
        ensure!(
            staged.len() == 2 && staged[0] < first && first < staged[1],
            "both were at work:\n{said}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn on_a_node_one_application_is_stopped_at_a_time_and_so_many_movers_are_at_work() {
    run_test("options-per-node", async |test| {
        let [from, to] = &test.cluster.classes;
        let names = ["one", "other"];
        let mut node = None;
        for name in names {
            test.create(&claim(name, from)).await?;
            let image = &test.cluster.tools_image;
            let mut app = deployment(name, image, &stay(""), &[mount(name)]);
            let template = app.spec.as_mut().map(|spec| &mut spec.template);
            let spec = template.and_then(|template| template.spec.as_mut());
            spec.context("a template without a pod")?.node_selector = node.clone().map(|node| {
                let key = "kubernetes.io/hostname".to_string();
                [(key, node)].into()
            });
            test.create(&app).await?;
            let pods = example::pods(&test.cluster, &test.namespace, &[name]).await?;
            let pod = test.api::<Pod>().get(&pods[name]).await?;
            node = pod.spec.and_then(|spec| spec.node_name);
        }
        let at = |said: &str, phase: &str| -> Result<[usize; 2]> {
            let phase = format!("phase={phase}");
            let all: Vec<usize> = said.match_indices(&phase).map(|(at, _)| at).collect();
            all.try_into()
                .map_err(|_| anyhow!("not two claims reach {phase}:\n{said}"))
        };

        // By default two movers, and one application that is stopped.
        let said = outside(test, 0, &["run"]).await?;
        let (frozen, thawed) = (at(&said, "Frozen")?, at(&said, "Thawed")?);
        ensure!(thawed[0] < frozen[1], "both were stopped:\n{said}");

        let back = [
            "run",
            &format!("--source-sc={to}"),
            &format!("--dest-sc={from}"),
            "--parallelism-per-node=1",
            "--parallelism-stopped-per-node=2",
        ];
        let said = outside(test, 0, &back).await?;
        let (staged, reserved) = (at(&said, "Staged")?, at(&said, "Reserved")?);
        ensure!(reserved[0] < staged[1], "two movers were at work:\n{said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_takes_longer_to_end_than_a_freeze_may_take_stays_on_its_source() {
    run_test("options-freeze-seconds", async |test| {
        let [from, _] = &test.cluster.classes;
        test.create(&claim("data", from)).await?;
        let script = "trap '' TERM\necho kept >/data/file\nwhile :; do sleep 1000; done";
        let mut app = deployment("app", &test.cluster.tools_image, script, &[mount("data")]);
        let spec = app
            .spec
            .as_mut()
            .and_then(|spec| spec.template.spec.as_mut());
        spec.context("a template without a pod")?
            .termination_grace_period_seconds = Some(15);
        test.create(&app).await?;
        example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let said = outside(test, 4, &["run", "--freeze-seconds=3"]).await?;
        let sentence = " s for the group's consumers to be gone, in vain: ";
        ensure!(said.contains(sentence), "{said}");
        ensure!(
            said.contains("its applications run on their sources"),
            "{said}"
        );
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let holds = test.exec(&pods["data"], "cat /data/file").await?;
        ensure!(holds == "kept\n", "the file holds {holds:?}");
        let found = bound(&test.cluster, &test.namespace, "data").await?;
        ensure!(found.class() == from, "it is of {}", found.class());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_source_that_its_provisioner_does_not_delete_in_time_is_said_and_no_failure() {
    run_test("options-delete-seconds", async |test| {
        let rule = json!({"call": "Delete", "fail": "the array is busy"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        test.create(&claim("data", "csi-a")).await?;
        use_them(test, &[mount("data")]).await?;
        let source = bound(&test.cluster, &test.namespace, "data").await?.volume;
        let arguments = [
            "run",
            "--source-sc=csi-a",
            "--dest-sc=csi-b",
            "--source-volumes=delete",
            "--volume-delete-seconds=3",
        ];
        let said = outside(test, 0, &arguments).await?;
        let name = source.name_any();
        for sentence in [
            "the source is not deleted yet; its provisioner goes on",
            &format!("waited 3 s for the provisioner to delete volume {name}, in vain: "),
        ] {
            ensure!(
                said.contains(sentence),
                "nothing says {sentence:?}:\n{said}"
            );
        }
        drop(fault);
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        let what = format!("volume {name} to be deleted");
        wait_for(&what, Duration::from_secs(120), async || {
            ensure!(volumes.get_opt(&name).await?.is_none(), "it is there");
            Ok(())
        })
        .await
    })
    .await;
}

async fn specs(test: &Test, names: &[&str]) -> Result<Vec<Option<DeploymentSpec>>> {
    let mut all = Vec::new();
    for name in names {
        all.push(test.api::<Deployment>().get(name).await?.spec);
    }
    Ok(all)
}
