//! Hears what the applications say they have written, from outside their volumes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use pvmigrate_e2e::Cluster;
use pvmigrate_e2e::example::{self, Line};

/// By claim.
type Heard = BTreeMap<String, Vec<Line>>;

pub struct Listener(Arc<Mutex<Heard>>);

impl Listener {
    /// Listens to these pods, named by their claims, until they end.
    pub fn start(cluster: &Cluster, namespace: &str, pods: &BTreeMap<String, String>) -> Self {
        let heard = Arc::new(Mutex::new(Heard::new()));
        for (claim, pod) in pods {
            let api = Api::<Pod>::namespaced(cluster.client.clone(), namespace);
            tokio::spawn(listen(api, claim.clone(), pod.clone(), Arc::clone(&heard)));
        }
        Self(heard)
    }

    /// All that was heard until now.
    pub fn heard(&self) -> Heard {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn listen(api: Api<Pod>, claim: String, pod: String, heard: Arc<Mutex<Heard>>) {
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    // What is not heard is not proved: the proof says how much was.
    let Ok(log) = api.log_stream(&pod, &params).await else {
        return;
    };
    let mut text = log.lines();
    while let Ok(Some(line)) = text.try_next().await {
        let Ok(lines) = example::lines(&line) else {
            continue;
        };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(claim.clone()).or_default().extend(lines);
    }
}
