//! How movers work, from the chart's values to what they do.

use anyhow::{Result, ensure};
use pvmigrate_e2e::{Release, Test, claim, deployment, example, leftovers, mount, run_test, stay};

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
    let [from, to] = &test.cluster.classes;
    test.create(&claim("data", from)).await?;
    let image = &test.cluster.tools_image;
    let script = stay(
        "[ -e /data/file ] || { mkdir /data/cache && touch /data/cache/x /data/b.tmp && echo data >/data/file; }",
    );
    test.create(&deployment("app", image, &script, &[mount("data")]))
        .await?;
    example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let namespace = test.new_namespace("release").await?;
    let classes = [from.clone(), to.clone()];
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    release.start(values).await?;
    Ok(release)
}
