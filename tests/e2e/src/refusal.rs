//! A policy that refuses claims once they are to be on another class, and not a moment before:
//! staging claims have other names. The Job tries again for 20 s.

use anyhow::Result;
use serde_json::json;

use crate::{Cluster, create_policy, delete_policy};

/// Named after the namespace that it is for.
pub struct Refusal {
    cluster: Cluster,
    namespace: String,
}

impl Refusal {
    /// Refuses these claims of a namespace on this class.
    pub async fn new(
        cluster: &Cluster,
        namespace: &str,
        claims: &[&str],
        dest: &str,
    ) -> Result<Self> {
        let spec = json!({
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                    "operations": ["CREATE"], "resources": ["persistentvolumeclaims"]}],
            },
            "validations": [{
                "expression": format!("!(object.metadata.name in {claims:?}) || object.spec.storageClassName != {dest:?}"),
                "message": "this test refuses the claim on its new class",
            }],
        });
        create_policy(&cluster.client, namespace, spec).await?;
        Ok(Self {
            cluster: cluster.clone(),
            namespace: namespace.into(),
        })
    }

    pub async fn remove(self) -> Result<()> {
        delete_policy(&self.cluster.client, &self.namespace).await
    }
}
