//! Kinds of a test's own, with a `/scale` or without, and what an operator of them would do.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use pvmigrate_e2e::{Test, wait_for};
use serde_json::json;

/// One kind, of which each test has one object: `widget` of kind Widget, whose pod is `widget-0`.
pub struct Operator {
    kind: ApiResource,
    name: String,
}

impl Operator {
    pub async fn define(test: &Test, kind: &str, has_scale: bool) -> Result<Self> {
        let group = format!("{}.example.org", test.namespace);
        let name = kind.to_lowercase();
        let plural = format!("{name}s");
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let scale = json!({"scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        }});
        let definition: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": name},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": if has_scale { scale } else { json!({}) },
                }],
            },
        }))?;
        Api::<CustomResourceDefinition>::all(test.cluster.client.clone())
            .create(&PostParams::default(), &definition)
            .await?;
        let operator = Self {
            kind: ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk(&group, "v1", kind),
                &plural,
            ),
            name,
        };
        let what = format!("{plural} to be served");
        wait_for(&what, Duration::from_secs(60), async || {
            operator.api(test).list(&ListParams::default()).await?;
            Ok(())
        })
        .await?;
        Ok(operator)
    }

    /// What `rbac.extraRules` would let the Job do; the user too.
    pub async fn allow(&self, test: &Test) -> Result<()> {
        let (name, group) = (&self.kind.plural, &self.kind.group);
        let role: Role = serde_json::from_value(json!({
            "metadata": {"name": name},
            "rules": [{
                "apiGroups": [group], "resources": [name, format!("{name}/scale")], "verbs": ["*"],
            }],
        }))?;
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
                "name": "system:serviceaccounts",
            }],
        }))?;
        test.create(&role).await?;
        test.create(&binding).await?;
        Ok(())
    }

    pub async fn forget(&self, test: &Test) -> Result<()> {
        let name = format!("{}.{}", self.kind.plural, self.kind.group);
        Api::<CustomResourceDefinition>::all(test.cluster.client.clone())
            .delete(&name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    pub fn group(&self) -> &str {
        &self.kind.group
    }

    pub fn api_version(&self) -> &str {
        &self.kind.api_version
    }

    pub fn api(&self, test: &Test) -> Api<DynamicObject> {
        Api::namespaced_with(test.cluster.client.clone(), &test.namespace, &self.kind)
    }

    /// The object, which has its pod in its spec.
    pub async fn create(&self, test: &Test, pod: &Pod, annotations: &[(&str, &str)]) -> Result<()> {
        let mut object = DynamicObject::new(&self.name, &self.kind).data(json!({
            "spec": {"replicas": 1, "pod": pod.spec},
        }));
        let pairs = annotations.iter();
        let pairs = pairs.map(|(name, value)| ((*name).to_string(), (*value).to_string()));
        object.annotations_mut().extend(pairs);
        self.api(test)
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    pub async fn scale(&self, test: &Test, replicas: i32) -> Result<()> {
        let replicas = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.api(test)
            .patch_scale(&self.name, &PatchParams::default(), &replicas)
            .await?;
        Ok(())
    }

    /// Makes the pod, and removes it, as the number of replicas says; for ever.
    pub async fn operate(&self, test: &Test) {
        loop {
            // What is refused is tried again, as by any controller.
            let _ = self.reconcile(test).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn reconcile(&self, test: &Test) -> Result<()> {
        let object = self.api(test).get(&self.name).await?;
        let is_wanted = object.data["spec"]["replicas"].as_i64() > Some(0);
        let (pods, name) = (test.api::<Pod>(), format!("{}-0", self.name));
        match pods.get_opt(&name).await? {
            None if is_wanted => {
                let pod: Pod = serde_json::from_value(json!({
                    "metadata": {
                        "name": name,
                        "labels": {"app": name},
                        "ownerReferences": [{
                            "apiVersion": self.kind.api_version, "kind": self.kind.kind,
                            "name": self.name, "uid": object.uid(), "controller": true,
                        }],
                    },
                    "spec": object.data["spec"]["pod"],
                }))?;
                test.create(&pod).await?;
            }
            Some(pod) if !is_wanted && pod.metadata.deletion_timestamp.is_none() => {
                pods.delete(&name, &DeleteParams::default()).await?;
            }
            _ => {}
        }
        Ok(())
    }
}
