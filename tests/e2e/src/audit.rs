//! What a ServiceAccount has asked the API server of the test bed, counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
use pvmigrate_testbed::Bed;
use serde_json::Value;

/// The requests of a ServiceAccount, by verb and resource. A watch is one request, however long it
/// stays.
pub fn requests(bed: &Bed, namespace: &str, account: &str) -> Result<BTreeMap<String, usize>> {
    let path = bed.audit_log();
    let file = File::open(&path).with_context(|| {
        format!(
            "there is no {}: the test bed was booted by an older version; make cluster-down cluster",
            path.display()
        )
    })?;
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let mut counted = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        // Most lines are of others, and parsing is what takes long.
        if !line.contains(&user) {
            continue;
        }
        let event: Value = serde_json::from_str(&line)?;
        let is_answered = matches!(
            (event["stage"].as_str(), event["verb"].as_str()),
            (Some("ResponseStarted"), Some("watch")) | (Some("ResponseComplete"), _)
        );
        let is_end_of_watch = event["verb"] == "watch" && event["stage"] == "ResponseComplete";
        if event["user"]["username"] == user.as_str() && is_answered && !is_end_of_watch {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_string();
            let object = &event["objectRef"];
            let mut asked = format!("{} {}", text(&event["verb"]), text(&object["resource"]));
            if let Some(sub) = object["subresource"].as_str() {
                asked = format!("{asked}/{sub}");
            }
            *counted.entry(asked).or_default() += 1;
        }
    }
    Ok(counted)
}
