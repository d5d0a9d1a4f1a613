//! Somebody who tries, all the time, to use a claim and to start a workload, until refused. Dry
//! runs: they go through all of admission, and change nothing where they are let through.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use pvmigrate_e2e::{Cluster, mount, pod};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// What every refusal of ours begins with.
const OURS: &str = "pvmigrate ";

pub struct Intruder {
    mounting: JoinHandle<String>,
    scaling: JoinHandle<String>,
}

impl Intruder {
    /// Begins, and prints the first refusal of either when it comes.
    pub fn start(cluster: &Cluster, namespace: &str, began: Instant) -> Self {
        let pods = Api::<Pod>::namespaced(cluster.client.clone(), namespace);
        let wanted = pod("guest", &cluster.tools_image, "true", &[mount("web")]);
        let mounting = tokio::spawn(async move {
            let dry = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            loop {
                if let Some(sentence) = refusal(pods.create(&dry, &wanted).await) {
                    println!("{}", shown(began, "a pod that mounts claim web", &sentence));
                    return sentence;
                }
                sleep(BETWEEN_TRIES).await;
            }
        });
        let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), namespace);
        let scaling = tokio::spawn(async move {
            let dry = PatchParams {
                dry_run: true,
                ..PatchParams::default()
            };
            let more = Patch::Merge(json!({"spec": {"replicas": 3}}));
            loop {
                if let Some(sentence) = refusal(deployments.patch_scale("web", &dry, &more).await) {
                    println!("{}", shown(began, "scaling Deployment web up", &sentence));
                    return sentence;
                }
                sleep(BETWEEN_TRIES).await;
            }
        });
        Self { mounting, scaling }
    }

    /// Fails unless both were refused, by us.
    pub async fn was_refused(self) -> Result<()> {
        for (what, task) in [("a pod", self.mounting), ("scaling up", self.scaling)] {
            let abort = task.abort_handle();
            // The run is over: who was not refused by now never will be.
            let answer = timeout(Duration::from_secs(1), task).await;
            abort.abort();
            let sentence = answer.with_context(|| format!("{what} was not refused"))??;
            ensure!(
                sentence.starts_with(OURS),
                "{what} was refused by somebody else: {sentence}"
            );
        }
        Ok(())
    }
}

fn shown(began: Instant, what: &str, sentence: &str) -> String {
    let seconds = began.elapsed().as_secs_f64();
    format!("   {seconds:5.1} s  SOMEBODY ELSE TRIES {what}: 403 {sentence}")
}

/// Our sentence, where the answer is a refusal.
fn refusal<T>(answer: kube::Result<T>) -> Option<String> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let from = status
                .message
                .find("pvmigrate is ")
                .or_else(|| status.message.find("pvmigrate stops "));
            Some(status.message[from.unwrap_or(0)..].to_string())
        }
        _ => None,
    }
}
