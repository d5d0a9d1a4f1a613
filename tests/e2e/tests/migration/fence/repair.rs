//! What somebody does to the fence while it stands is undone at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hyper::Request;
use kube::Client;
use pvmigrate_e2e::{leftovers, run_test};
use pvmigrate_record::{names, record};
use serde_json::{Value, json};

use super::{frozen_halfway, let_go, moved};

/// How long a fence may be other than it was made, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn what_is_edited_or_deleted_is_put_back_at_once_and_the_proof_is_repeated() {
    run_test("fence-repair", async |test| {
        let (release, user) = frozen_halfway(test).await?;
        let of = record::Release {
            namespace: release.namespace.clone(),
            name: release.name.clone(),
        };
        let fence = names::fence_object(&of);
        let parameters = names::fence_claims(&of);
        let admission = "/apis/admissionregistration.k8s.io/v1";
        let webhook = format!("{admission}/validatingwebhookconfigurations/{fence}");
        let policy = format!("{admission}/validatingadmissionpolicies/{fence}");
        let binding = format!("{admission}/validatingadmissionpolicybindings/{fence}");
        let account = format!("/api/v1/namespaces/{}/serviceaccounts/{parameters}", release.namespace);
        let key = format!("{}{}", names::FENCED, test.namespace);
        let nothing_matches = json!({"matchLabels": {"no": "such"}});
        let edits: [(&str, Value); 7] = [
            (&webhook, json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}])),
            (&webhook, json!([{"op": "remove", "path": "/webhooks/0"}])),
            // What was left open when it was made is watched as well.
            (&webhook, json!([{"op": "add", "path": "/webhooks/0/objectSelector", "value": nothing_matches}])),
            (&policy, json!([{"op": "remove", "path": "/spec/validations/0"}])),
            (&policy, json!([{"op": "add", "path": "/spec/matchConstraints/excludeResourceRules", "value":
                [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}])),
            (&binding, json!([{"op": "replace", "path": "/spec/validationActions", "value": ["Warn"]}])),
            (&account, json!([{"op": "replace", "path": format!("/metadata/annotations/{}", key.replace('/', "~1")), "value": ""}])),
        ];
        let client = &test.cluster.client;
        for (object, edit) in edits {
            let before = essence(client, object).await?;
            ask(client, "PATCH", object, &edit).await?;
            put_back(client, object, &before, &edit.to_string()).await?;
        }
        for object in [&webhook, &binding, &policy, &account] {
            let before = essence(client, object).await?;
            ask(client, "DELETE", object, &json!({})).await?;
            put_back(client, object, &before, "deleted").await?;
        }
        let sentence = format!("pvmigrate is migrating claim {}/web to ", test.namespace);
        pvmigrate_e2e::wait_for("the policy to be in force again", Duration::from_secs(20), async || {
            super::requests::expect_refusal(super::mounting(test, "web").of(&user).await, &sentence)
        })
        .await?;

        let_go(test).await?;
        let edited = "the fence was edited, by intruder; it was put back, and will be proved again";
        let deleted = "the fence was deleted by somebody; it was put back, and will be proved again";
        let end = release.ended().await?.expect(0, &[edited, deleted])?;
        let repairs = end.log.matches("it was put back").count();
        ensure!(repairs == 11, "{repairs} repairs of 11 changes:\n{}", end.log);
        moved(test).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

async fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value> {
    let kind = if method == "PATCH" {
        "application/json-patch+json"
    } else {
        "application/json"
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?fieldManager=intruder"))
        .header("Content-Type", kind)
        .body(body.to_string().into_bytes())?;
    Ok(client.request(request).await?)
}

/// What makes the fence of an object: everything but who wrote it when.
async fn essence(client: &Client, path: &str) -> Result<Value> {
    let mut found: Value = client.request(Request::get(path).body(vec![])?).await?;
    let root = found.as_object_mut().context("not an object")?;
    root.remove("status");
    let metadata = root["metadata"].as_object_mut().context("no metadata")?;
    for written in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
    ] {
        metadata.remove(written);
    }
    Ok(found)
}

async fn put_back(client: &Client, path: &str, before: &Value, what: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let now = essence(client, path).await;
        let took = started.elapsed();
        if now.as_ref().is_ok_and(|now| now == before) {
            println!("{path} {what}: put back within {} ms", took.as_millis());
            return Ok(());
        }
        ensure!(
            took < AT_ONCE,
            "{path} {what}: after {took:?} it is {now:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
