//! What somebody asks of the API server: dry runs, so that nothing changes whatever the answer is.

use anyhow::{Context, Result, bail, ensure};
use hyper::Request;
use kube::Client;
use pvmigrate_e2e::Test;
use serde_json::{Value, json};

/// A request, as a line of a table: a method, a path, a body.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub body: Value,
}

pub fn create(path: impl Into<String>, body: Value) -> Ask {
    Ask {
        method: "POST",
        path: path.into(),
        body,
    }
}

/// A merge patch, or a JSON patch if it is a list.
pub fn patch(path: impl Into<String>, body: Value) -> Ask {
    Ask {
        method: "PATCH",
        path: path.into(),
        body,
    }
}

pub fn delete(path: impl Into<String>) -> Ask {
    Ask {
        method: "DELETE",
        path: path.into(),
        body: Value::Null,
    }
}

/// Deleted without its pods, as `kubectl replace --force --cascade=orphan` does it. Where a deletion
/// has options, those in its path do not count: this has to say itself that it is a dry run.
pub fn orphan(path: impl Into<String>) -> Ask {
    Ask {
        method: "DELETE",
        path: path.into(),
        body: json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": "Orphan", "gracePeriodSeconds": 0, "dryRun": ["All"],
        }),
    }
}

impl Ask {
    /// Asks it as a dry run.
    pub async fn of(&self, client: &Client) -> kube::Result<()> {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let kind = match self.body {
            Value::Array(_) => "application/json-patch+json",
            _ if self.method == "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = match self.body {
            Value::Null => vec![],
            _ => self.body.to_string().into_bytes(),
        };
        let request = Request::builder()
            .method(self.method)
            .uri(format!("{}{separator}dryRun=All", self.path))
            .header("Content-Type", kind)
            .body(body)
            .expect("a request");
        client.request_text(request).await.map(drop)
    }

    /// Fails unless it is refused with code 403 and exactly this.
    pub async fn refused(&self, client: &Client, message: &str) -> Result<()> {
        match self.of(client).await {
            Err(kube::Error::Api(status)) if status.code == 403 && status.message == message => {
                Ok(())
            }
            Err(kube::Error::Api(status)) => bail!(
                "{self:?}:\n{} {:?}\ninstead of 403\n{message:?}",
                status.code,
                status.message
            ),
            other => bail!("{self:?}: {other:?} instead of a refusal: {message}"),
        }
    }

    /// Fails unless it passes admission. Whether the name is taken is asked only after that.
    pub async fn passes(&self, client: &Client) -> Result<()> {
        match self.of(client).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            other => other.with_context(|| format!("{self:?}")),
        }
    }
}

/// The path of a kind in the test's namespace.
pub fn at(test: &Test, group: &str, resource: &str) -> String {
    let group = match group {
        "v1" => "/api/v1".into(),
        group => format!("/apis/{group}"),
    };
    format!("{group}/namespaces/{}/{resource}", test.namespace)
}

/// An object with this name and spec.
#[allow(clippy::needless_pass_by_value)] // It is made where it is passed.
pub fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// The spec of a pod that mounts these claims.
pub fn pod_spec(claims: &[&str]) -> Value {
    let volumes: Vec<Value> = claims
        .iter()
        .enumerate()
        .map(|(number, claim)| json!({"name": format!("v{number}"), "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    json!({"containers": [{"name": "app", "image": "none"}], "volumes": volumes})
}

/// The spec of a workload with that template.
pub fn workload_spec(claims: &[&str]) -> Value {
    let labels = json!({"app": "guest"});
    json!({
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod_spec(claims)},
    })
}

/// The spec of a Job with that template.
pub fn job_spec(claims: &[&str]) -> Value {
    let mut spec = pod_spec(claims);
    spec["restartPolicy"] = json!("Never");
    json!({"template": {"spec": spec}})
}

/// The spec of a claim, and what is added to it.
pub fn claim_spec(class: &str, more: Value) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class,
        "resources": {"requests": {"storage": "64Mi"}},
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    spec
}

/// Refused with code 403 and this sentence, and not by somebody else.
pub fn expect_refusal(answer: kube::Result<()>, sentence: &str) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            ensure!(
                status.message.contains(sentence),
                "{:?}\nis not\n{sentence:?}",
                status.message
            );
            Ok(())
        }
        other => bail!("{other:?} instead of a refusal: {sentence}"),
    }
}
