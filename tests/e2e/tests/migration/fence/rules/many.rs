//! How many names the conditions of both layers can hold.

use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams};
use pvmigrate_e2e::{run_test, wait_for};
use pvmigrate_record::{names, refusal};
use serde_json::json;

use super::super::halted::Halted;
use super::super::requests::{
    at, claim_spec, create, expect_refusal, object, pod_spec, workload_spec,
};
use super::{IN_FORCE, of, put};

#[tokio::test]
async fn five_hundred_fenced_claims_are_few_enough_for_both_layers() {
    run_test("fence-names", async |test| {
        let halted = Halted::start(test, "my-db", "scale").await?;
        let client = test.cluster.client.clone();
        let records = halted.records().await?;
        let web = of(&records, "web")?;
        let more: Vec<String> = (0..499).map(|number| format!("{number:0>60}")).collect();

        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &halted.of.namespace);
        let key = format!("{}{}", names::FENCED, test.namespace);
        let all = format!("{}\nweb", more.join("\n"));
        let fenced = json!({"metadata": {"annotations": {key: all}}});
        put(&accounts, &names::fence_claims(&halted.of), fenced).await?;
        let mounting = |claims: &[&str]| {
            create(at(test, "v1", "pods"), object("v1", "Pod", "guest", pod_spec(claims)))
        };
        let claim = format!("pvmigrate is migrating claim {}/{} ", test.namespace, more[498]);
        wait_for("the policy to know them all", IN_FORCE, async || {
            expect_refusal(mounting(&[&more[498]]).of(&halted.user).await, &claim)
        })
        .await?;
        let others: Vec<String> = (0..30).map(|number| format!("other-{number}")).collect();
        let mut others: Vec<&str> = others.iter().map(String::as_str).collect();
        mounting(&others).passes(&halted.user).await.context("the policy")?;

        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
        bindings.delete(&halted.fence, &DeleteParams::default()).await?;
        let api = Api::<ValidatingWebhookConfiguration>::all(client);
        let mut whole = api.get(&halted.fence).await?.webhooks.unwrap_or_default();
        let (mut found, all) = (0, format!("'{}', 'web']", more.join("', '")));
        for condition in whole.iter_mut().flat_map(|entry| entry.match_conditions.iter_mut().flatten()) {
            found += condition.expression.matches("'web']").count();
            condition.expression = condition.expression.replace("'web']", &all);
        }
        ensure!(found == 8, "{found} conditions name the claims");
        put(&api, &halted.fence, json!({"webhooks": whole})).await?;
        let message = format!("admission webhook \"pods.fence.pvmigrate.io\" denied the request: {}", refusal::pod(web));
        wait_for("the webhook's conditions to be in force", IN_FORCE, async || {
            mounting(&["web"]).refused(&halted.user, &message).await
        })
        .await?;
        let started = Instant::now();
        for _ in 0..20 {
            mounting(&others).passes(&halted.user).await.context("the webhook")?;
        }
        println!("a pod with 30 volumes passes 500 names in {} us", started.elapsed().as_micros() / 20);
        others.push("web");
        mounting(&others).refused(&halted.user, &message).await?;
        let mut set = workload_spec(&[]);
        set["serviceName"] = json!("guest");
        let template = |name: &str| json!({"metadata": {"name": name}, "spec": claim_spec(&test.cluster.classes[0], json!({}))});
        set["volumeClaimTemplates"] = json!([template("a"), template("b"), template("c")]);
        create(at(test, "apps/v1", "statefulsets"), object("apps/v1", "StatefulSet", "guest", set))
            .passes(&halted.user)
            .await?;
        halted.finish().await
    })
    .await;
}
