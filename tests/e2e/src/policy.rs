//! A policy of a test's own, and its binding: both have the same name.

use anyhow::{Context, Result};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

/// Creates a policy with this spec, that denies.
pub async fn create_policy(client: &Client, name: &str, spec: Value) -> Result<()> {
    let post = PostParams::default();
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    let binding = json!({
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    Api::<ValidatingAdmissionPolicy>::all(client.clone())
        .create(&post, &serde_json::from_value(policy)?)
        .await?;
    Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())
        .create(&post, &serde_json::from_value(binding)?)
        .await?;
    Ok(())
}

pub async fn delete_policy(client: &Client, name: &str) -> Result<()> {
    let delete = DeleteParams::default();
    Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())
        .delete(name, &delete)
        .await?;
    Api::<ValidatingAdmissionPolicy>::all(client.clone())
        .delete(name, &delete)
        .await
        .context("removing the test's policy")?;
    Ok(())
}
