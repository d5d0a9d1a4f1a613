//! Which class is the default afterwards.

use anyhow::{Result, ensure};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{Test, claim, mount, run_test};

use super::{DEFAULT, class_like, delete_class, outside, use_them};

#[tokio::test]
async fn the_destination_becomes_the_default_class_and_a_third_one_only_by_force() {
    run_test("options-default", async |test| {
        // Elsewhere it would be somebody's own default class.
        if !test.has_bed() {
            return Ok(());
        }
        let source = class_like(test, "csi-a", "a", Some("true")).await?;
        let dest = class_like(test, "csi-b", "b", None).await?;
        let third = class_like(test, "csi-b", "c", Some("true")).await?;
        let moved = move_the_default(test, [&source, &dest, &third]).await;
        // Whatever came of it: the next test is not to find a default class.
        for class in [source, dest, third] {
            delete_class(test, &class).await?;
        }
        moved
    })
    .await;
}

async fn move_the_default(test: &Test, [source, dest, third]: [&String; 3]) -> Result<()> {
    test.create(&claim("data", source)).await?;
    use_them(test, &[mount("data")]).await?;
    let classes = [format!("--source-sc={source}"), format!("--dest-sc={dest}")];
    let [a, b] = &classes;
    let said = outside(test, 0, &["run", a, b, "--set-default"]).await?;
    let left = format!(
        "another StorageClass is the default, and stays it; setDefault: force would move that class={third}"
    );
    ensure!(said.contains(&left), "{said}");
    let are = defaults(test).await?;
    ensure!(are == [third.clone()], "the default classes are {are:?}");
    // The run is complete, and can still be told so.
    outside(test, 0, &["run", a, b, "--set-default=force"]).await?;
    let are = defaults(test).await?;
    ensure!(are == [dest.clone()], "the default classes are {are:?}");
    Ok(())
}

/// The default classes among the test's own.
async fn defaults(test: &Test) -> Result<Vec<String>> {
    let api = Api::<StorageClass>::all(test.cluster.client.clone());
    let classes = api.list(&ListParams::default()).await?;
    let own = classes.items.iter().filter(|class| {
        class.name_any().starts_with(&test.namespace)
            && class
                .annotations()
                .get(DEFAULT)
                .is_some_and(|is| is == "true")
    });
    Ok(own.map(ResourceExt::name_any).collect())
}
