//! The policy's rules, alone.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::Api;
use pvmigrate_e2e::{run_test, wait_for};
use pvmigrate_record::refusal;
use serde_json::{Value, json};

use super::super::halted::Halted;
use super::super::requests::{Ask, at, claim_spec, create, object, patch, pod_spec};
use super::{IN_FORCE, of, put};

#[tokio::test]
async fn each_rule_of_the_policy_refuses_and_without_it_the_same_request_passes() {
    run_test("fence-policy", async |test| {
        let halted = Halted::start(test, "my-db", "scale").await?;
        let client = test.cluster.client.clone();
        // A person can always do this.
        test.cluster
            .kubectl(&["delete", "validatingwebhookconfiguration", &halted.fence])
            .await?
            .success()?;
        let cases = policy_cases(&halted).await?;
        let api = Api::<ValidatingAdmissionPolicy>::all(client.clone());
        let policy = api.get(&halted.fence).await?;
        let whole = policy
            .spec
            .and_then(|spec| spec.validations)
            .context("no validations")?;
        ensure!(
            whole.len() == cases.len(),
            "{} rules, {} tests",
            whole.len(),
            cases.len()
        );
        for (number, (ask, message)) in cases.iter().enumerate() {
            wait_for("the webhook to be out of force", IN_FORCE, async || {
                ask.refused(&halted.user, message).await
            })
            .await?;
            let mut without = whole.clone();
            without.remove(number);
            put(
                &api,
                &halted.fence,
                json!({"spec": {"validations": without}}),
            )
            .await?;
            wait_for("the rule to be out of force", IN_FORCE, async || {
                ask.passes(&halted.user).await
            })
            .await?;
            put(&api, &halted.fence, json!({"spec": {"validations": whole}})).await?;
            wait_for("the rule to be in force", IN_FORCE, async || {
                ask.refused(&halted.user, message).await
            })
            .await?;
        }
        halted.finish().await
    })
    .await;
}

/// The policy's, in the order of its validations.
async fn policy_cases(halted: &Halted<'_>) -> Result<Vec<(Ask, String)>> {
    let (test, ns) = (halted.test, &halted.test.namespace);
    let records = halted.records().await?;
    let web = of(&records, "web")?;
    let [source_class, dest_class] = &test.cluster.classes;
    let follow = refusal::follow(&halted.of, &web.run);
    let about = format!("to StorageClass {dest_class} (run {}): ", web.run);
    let claim = format!("pvmigrate is migrating claim {ns}/web {about}");
    let source = &web.source.name;
    let a_claim = |name: &str, more: Value| {
        create(
            at(test, "v1", "persistentvolumeclaims"),
            object(
                "v1",
                "PersistentVolumeClaim",
                name,
                claim_spec(source_class, more),
            ),
        )
    };
    let up = json!({"spec": {"replicas": 1}});
    let by = format!(
        "ValidatingAdmissionPolicy '{0}' with binding '{0}' denied request: ",
        halted.fence
    );
    let claims = |name: &str| format!("persistentvolumeclaims \"{name}\" is forbidden: {by}");
    Ok(vec![
        (
            create(
                at(test, "v1", "pods"),
                object("v1", "Pod", "guest", pod_spec(&["none", "web"])),
            ),
            format!(
                "pods \"guest\" is forbidden: {by}{claim}no pod may mount it until that is done; {follow}"
            ),
        ),
        (
            a_claim("web", json!({})),
            format!(
                "{}{claim}no other claim may take its name until that is done; {follow}",
                claims("web")
            ),
        ),
        (
            a_claim(
                "guest",
                json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "web"}}),
            ),
            format!(
                "{}{claim}no claim may be made from it until that is done; {follow}",
                claims("guest")
            ),
        ),
        (
            a_claim("guest", json!({"volumeName": source})),
            format!(
                "{}pvmigrate is migrating a claim of namespace {ns} {about}no other claim may ask for its PersistentVolume {source} until that is done; {follow}",
                claims("guest")
            ),
        ),
        (
            patch(at(test, "apps/v1", "deployments/web/scale"), up),
            format!(
                "deployments.apps \"web\" is forbidden: {by}pvmigrate stops deployments {ns}/web while it migrates its claims {about}it will be scaled back up by itself when that is done; {follow}"
            ),
        ),
    ])
}
