//! How movers work, from the chart's values to what they do.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{Release, Test, claim, deployment, example, leftovers, mount, run_test, stay};
use serde_json::json;

#[tokio::test]
async fn a_copy_that_is_not_compared_is_a_warning_in_log_and_report() {
    run_test("not-compared", async |test| {
        let release = start(test, &["--set", "mover.verify=none"]).await?;
        let end = release.ended().await?;
        end.expect(
            0,
            &["the copy was NOT compared with its source", "migrated"],
        )?;
        let report = release.report().await?;
        let line = &report["claims"][format!("{}/data", test.namespace)];
        ensure!(line["compared"] == "none", "the report says {line}");
        let status = "jsonpath={.items[*].data.status}";
        let labelled = ["-l", "pvmigrate.io/run", "-o", status];
        let arguments = [
            &["-n", &release.namespace, "get", "configmap"],
            &labelled[..],
        ]
        .concat();
        let said = test.cluster.kubectl(&arguments).await?.success()?;
        ensure!(said.contains("NOT COMPARED with its source"), "{said}");
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn a_pattern_that_is_none_is_named_and_no_application_is_stopped_for_it() {
    run_test("no-pattern", async |test| {
        let release = start(
            test,
            &["--set-json", r#"mover.exclude=["fine","not[fine"]"#],
        )
        .await?;
        let end = release.ended().await?;
        let end = end.expect(4, &["error parsing glob 'not[fine'"])?;
        ensure!(
            !end.log.contains("phase=Frozen"),
            "it was stopped:\n{}",
            end.log
        );
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let holds = test.exec(&pods["data"], "cat /data/file").await?;
        ensure!(holds == "data\n", "the file holds {holds:?}");
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn what_is_excluded_stays_behind_and_every_other_setting_is_taken() {
    run_test("settings", async |test| {
        let mover = r#"mover={"verify":"full","exclude":["cache/*","{a,b}.tmp"],"bandwidth":"20Mi","lose":["acls","specials"],"threads":1}"#;
        let release = start(test, &["--set-json", mover]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        let report = release.report().await?;
        let line = &report["claims"][format!("{}/data", test.namespace)];
        ensure!(line["compared"] == "full", "the report says {line}");
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let left = test
            .exec(&pods["data"], "cd /data; find . -type f ! -path '*lost+found*'")
            .await?;
        ensure!(left == "./file\n", "on the new volume are {left:?}");
        release.uninstall().await
    })
    .await;
}

/// A release with these values, for an application with a file and some that it can do without.
async fn start(test: &Test, values: &[&str]) -> Result<Release> {
    start_with(test, values, "true").await
}

/// The same, with more done in the volume.
async fn start_with(test: &Test, values: &[&str], more: &str) -> Result<Release> {
    let [from, to] = &test.cluster.classes;
    test.create(&claim("data", from)).await?;
    let image = &test.cluster.tools_image;
    let script = stay(&format!(
        "[ -e /data/file ] || {{ mkdir /data/cache && touch /data/cache/x /data/b.tmp && {more} && echo data >/data/file; }}"
    ));
    test.create(&deployment("app", image, &script, &[mount("data")]))
        .await?;
    example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let namespace = test.new_namespace("release").await?;
    let classes = [from.clone(), to.clone()];
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    release.start(values).await?;
    Ok(release)
}

/// In a namespace that admits no pod without limits, and gives each some.
#[tokio::test]
async fn a_mover_is_dressed_as_the_values_say_also_under_a_quota_and_a_limit_range() {
    run_test("mover-dressed", async |test| {
        let class = PriorityClass {
            metadata: ObjectMeta {
                name: Some(test.namespace.clone()),
                ..ObjectMeta::default()
            },
            value: 7,
            ..PriorityClass::default()
        };
        let classes = Api::<PriorityClass>::all(test.cluster.client.clone());
        classes.create(&PostParams::default(), &class).await?;
        let quota = json!({"metadata": {"name": "all"}, "spec": {"hard": {
            "limits.memory": "1Gi", "limits.cpu": "4", "pods": "5"}}});
        test.create(&serde_json::from_value::<ResourceQuota>(quota)?)
            .await?;
        let limits = json!({"metadata": {"name": "each"}, "spec": {"limits": [
            {"type": "Container", "default": {"memory": "200Mi", "cpu": "500m"}}]}});
        test.create(&serde_json::from_value::<LimitRange>(limits)?)
            .await?;
        let mover = json!({
            "resources": {"limits": {"memory": "150Mi"}},
            "priorityClassName": test.namespace,
            "tolerations": [{"key": "pvmigrate-test/none", "operator": "Exists"}],
            "labels": {"team": "storage"},
            "annotations": {"example.com/why": "moving"},
            "extraCapabilities": ["SYS_ADMIN"],
            "bandwidth": "1Mi",
        });
        let values = [
            "--set-json",
            &format!("mover={mover}"),
            "--set-json",
            r#"imagePullSecrets=[{"name":"registry"}]"#,
        ];
        let release = start_with(test, &values, "head -c 5000000 /dev/urandom >/data/much").await?;
        let mover = super::warm::await_warm_order(test).await?;
        let (labels, annotations) = (mover.labels().clone(), mover.annotations().clone());
        ensure!(
            labels.get("team").map(String::as_str) == Some("storage"),
            "{labels:?}"
        );
        let why = annotations.get("example.com/why").map(String::as_str);
        ensure!(why == Some("moving"), "{annotations:?}");
        let spec = serde_json::to_value(mover.spec)?;
        let container = &spec["containers"][0];
        ensure!(spec["priority"] == 7, "{spec}");
        ensure!(
            spec["imagePullSecrets"] == json!([{"name": "registry"}]),
            "{spec}"
        );
        let tolerations = spec["tolerations"].as_array().context("no tolerations")?;
        ensure!(
            tolerations
                .iter()
                .any(|t| t["key"] == "pvmigrate-test/none"),
            "{spec}"
        );
        // Its own, and what the namespace gives.
        let limits = json!({"memory": "150Mi", "cpu": "500m"});
        ensure!(container["resources"]["limits"] == limits, "{container}");
        let capabilities = container["securityContext"]["capabilities"]["add"].to_string();
        ensure!(capabilities.contains("SYS_ADMIN"), "{capabilities}");
        release.ended().await?.expect(0, &["migrated"])?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        classes
            .delete(&test.namespace, &DeleteParams::default())
            .await?;
        release.uninstall().await
    })
    .await;
}
