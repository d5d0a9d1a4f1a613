//! Claims that cannot be moved as they are, or are not those that were meant.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{create_class, delete_class, volume_of, with_spec};
use pvmigrate_e2e::{Outside, Test, claim, run_test, wait_for};
use serde_json::json;

use super::{UNCHANGED, no_trial_is_left, versions};

#[tokio::test]
async fn wishes_that_cannot_be_met_and_claims_that_are_not_ours_to_move_are_named() {
    run_test("claims-wrong", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let class = create_class(test, "Immediate", &[]).await?;
        let ns = &test.namespace;
        annotated(test, claim("wish", &class), "pvmigrate.io/access-mode", "RWX").await?;
        let device = with_spec(&claim("device", &class), &json!({"volumeMode": "Block"}))?;
        annotated(test, device, "pvmigrate.io/size", "32Mi").await?;
        test.create(&claim("leaving", &class)).await?;
        // As long as its claim is there, it stays.
        let leaving = volume_of(test, "leaving").await?.name_any();
        Api::<PersistentVolume>::all(test.cluster.client.clone())
            .delete(&leaving, &DeleteParams::default())
            .await?;
        test.create(&claim("foreign", "csi-now")).await?;
        for name in ["wish", "device", "foreign"] {
            test.await_bound(name).await?;
        }
        let system = Api::<PersistentVolumeClaim>::namespaced(test.cluster.client.clone(), "kube-system");
        system.create(&PostParams::default(), &claim(ns, &class)).await?;
        // One without a volume would be left out, and not named.
        wait_for("the system's claim to be Bound", Duration::from_secs(60), async || {
            let phase = system.get(ns).await?.status.and_then(|status| status.phase);
            ensure!(phase.as_deref() == Some("Bound"), "it is {phase:?}");
            Ok(())
        })
        .await?;

        let outside = Outside::new(test).await?;
        let before = versions(&test.cluster, &[ns]).await?;
        let namespaces = [ns.as_str(), "kube-system"];
        let all = outside.run([&class, "csi-b"], &namespaces, &[]).await;
        let named = format!("{ns}/foreign,elsewhere/data");
        let settings = [("PVMIGRATE_CLAIMS", named.as_str())];
        let some = outside.run([&class, "csi-b"], &[ns], &settings).await;
        system.delete(ns, &DeleteParams::default()).await?;
        all?.expect(
            3,
            &[
                &format!(r#"claim {ns}/wish has the annotation pvmigrate.io/access-mode: "RWX": "RWX" is none of ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod"#),
                &format!("claim {ns}/device is to be made 32Mi and is a block device of 64Mi: its end may be in use, so it cannot be made smaller"),
                &format!("volume {leaving} of claim {ns}/leaving is being deleted: its data goes with the claim"),
                &format!("claim kube-system/{ns} is in kube-system, which is never fenced: what the cluster itself needs is moved by hand"),
                UNCHANGED,
            ],
        )?;
        some?.expect(
            3,
            &[
                &format!("claims: claim {ns}/foreign is of StorageClass csi-now, not of {class}"),
                "claims: elsewhere/data is in a namespace that namespaces leaves out",
                UNCHANGED,
            ],
        )?;
        no_trial_is_left(test).await?;
        let after = versions(&test.cluster, &[ns]).await?;
        ensure!(before == after, "it was {before:#?}\nand is {after:#?}");
        outside.remove().await?;
        delete_class(test, &class).await
    })
    .await;
}

async fn annotated(
    test: &Test,
    mut claim: PersistentVolumeClaim,
    key: &str,
    value: &str,
) -> Result<()> {
    claim.annotations_mut().insert(key.into(), value.into());
    test.create(&claim).await?;
    Ok(())
}
