//! The rules, one by one: each layer alone refuses, with its exact sentence; and without the rule
//! the same request passes, so that it is this rule that refuses it.

mod around;
mod claims;
mod many;
mod pods;
mod policy;
mod suspended;
mod workloads;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use pvmigrate_e2e::{run_test, wait_for};
use pvmigrate_record::record::{Record, Workload};
use serde_json::{Value, json};

use super::halted::Halted;
use super::requests::{Ask, at};

/// A change of a webhook configuration is in force in milliseconds, one of a policy in a second; on a
/// machine that is busy with other tests later.
const IN_FORCE: Duration = Duration::from_secs(30);

/// A rule of the webhook, a request that it refuses, and the sentence.
type Row = (&'static str, Ask, String);

/// A row, who asks it, and all that the API server says.
struct Case {
    rule: &'static str,
    ask: Ask,
    message: String,
    client: Client,
}

#[tokio::test]
async fn each_rule_of_the_webhook_refuses_and_without_it_the_same_request_passes() {
    run_test("fence-rules", async |test| {
        let halted = Halted::start(test, "my-db", "scale").await?;
        let scene = Scene::of(&halted).await?;
        let mut cases = asked_by(&halted.user, pods::rows(&scene));
        cases.extend(asked_by(&halted.user, workloads::rows(&scene)));
        cases.extend(asked_by(&halted.user, claims::rows(&scene)));
        let admin = &test.cluster.client;
        cases.extend(asked_by(admin, around::rows(&scene)));
        let entries = alone(&halted, &cases).await?;
        for entry in &entries {
            let tested = cases.iter().any(|case| case.rule == entry);
            ensure!(tested, "nothing tests the rule {entry}");
        }
        halted.finish().await
    })
    .await;
}

/// Each case is refused by the webhook alone, passes without its rule, and is refused with it
/// again. Returns the names of all rules.
async fn alone(halted: &Halted<'_>, cases: &[Case]) -> Result<Vec<String>> {
    let client = halted.test.cluster.client.clone();
    // Its binding gone, the policy does nothing.
    Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())
        .delete(&halted.fence, &DeleteParams::default())
        .await?;
    for case in cases {
        wait_for("the policy to be out of force", IN_FORCE, async || {
            case.refused().await
        })
        .await?;
    }
    let api = Api::<ValidatingWebhookConfiguration>::all(client);
    let whole = api.get(&halted.fence).await?.webhooks.unwrap_or_default();
    let mut rules = vec![];
    for entry in &whole {
        let rule = entry.name.trim_end_matches(".fence.pvmigrate.io");
        rules.push(rule.to_string());
        let cases: Vec<&Case> = cases.iter().filter(|case| case.rule == rule).collect();
        if cases.is_empty() {
            continue;
        }
        let others = whole.iter().filter(|other| other.name != entry.name);
        let without: Vec<_> = others.collect();
        put(&api, &halted.fence, json!({"webhooks": without})).await?;
        for case in &cases {
            let what = format!("{rule} to be out of force");
            wait_for(&what, IN_FORCE, async || case.passes().await).await?;
        }
        put(&api, &halted.fence, json!({"webhooks": whole})).await?;
        for case in &cases {
            let what = format!("{rule} to be in force");
            wait_for(&what, IN_FORCE, async || case.refused().await).await?;
        }
        println!("{rule}: {} requests", cases.len());
    }
    Ok(rules)
}

fn asked_by(client: &Client, rows: Vec<Row>) -> Vec<Case> {
    let case = |(rule, ask, sentence): Row| Case {
        rule,
        ask,
        message: format!(
            "admission webhook \"{rule}.fence.pvmigrate.io\" denied the request: {sentence}"
        ),
        client: client.clone(),
    };
    rows.into_iter().map(case).collect()
}

impl Case {
    async fn refused(&self) -> Result<()> {
        self.ask.refused(&self.client, &self.message).await
    }

    async fn passes(&self) -> Result<()> {
        self.ask.passes(&self.client).await
    }
}

/// What most rows are about: two claims and their workloads, stopped.
struct Scene<'a> {
    halted: &'a Halted<'a>,
    records: Vec<Record>,
    web: Record,
    db: Record,
    deployment: Workload,
    set: Workload,
}

impl<'a> Scene<'a> {
    async fn of(halted: &'a Halted<'a>) -> Result<Self> {
        let records = halted.records().await?;
        let web = of(&records, "web")?.clone();
        let db = of(&records, "data-my-db-0")?.clone();
        let stopped = |record: &Record| {
            let freezing = record.freeze.workloads.first().context("no workload")?;
            anyhow::Ok(freezing.workload.clone())
        };
        Ok(Self {
            deployment: stopped(&web)?,
            set: stopped(&db)?,
            halted,
            records,
            web,
            db,
        })
    }

    /// The path of a kind in the test's namespace.
    fn at(&self, group: &str, resource: &str) -> String {
        at(self.halted.test, group, resource)
    }
}

async fn put<K>(api: &Api<K>, name: &str, what: Value) -> Result<()>
where
    K: Clone + std::fmt::Debug + k8s_openapi::serde::de::DeserializeOwned,
{
    let params = PatchParams::default();
    api.patch(name, &params, &Patch::Merge(what)).await?;
    Ok(())
}

/// The record of a claim.
fn of<'a>(records: &'a [Record], claim: &str) -> Result<&'a Record> {
    let mut found = records.iter().filter(|record| record.claim.name == claim);
    found
        .next()
        .with_context(|| format!("no record of {claim}"))
}
