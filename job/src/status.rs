//! `pvmigrate status`: a line a claim, from the records on the volumes.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use kube::api::ListParams;
use pvmigrate_record::names;
use pvmigrate_record::phase::Heading;

use crate::cluster::{Cluster, retried};
use crate::exit::Exit;
use crate::observe::record_of;

pub async fn print() -> anyhow::Result<Exit> {
    let cluster = Cluster::connect().await?;
    let api = cluster.all::<PersistentVolume>();
    let params = ListParams::default().labels(&format!(
        "{},{}={}",
        names::RUN,
        names::ROLE,
        names::ROLE_SOURCE
    ));
    let volumes = retried(|| api.list(&params)).await?.items;
    let mut lines = Vec::new();
    for volume in &volumes {
        let Some(record) = record_of(volume) else {
            continue;
        };
        let line = match record {
            Ok(record) => {
                let outcome = record
                    .outcome
                    .map_or_else(String::new, |outcome| format!(" ({outcome:?})"));
                let heading = match record.heading {
                    Heading::Destination => &record.destination_class,
                    Heading::Source => &record.source_class,
                };
                let why = record
                    .failure
                    .map_or_else(String::new, |failure| format!("  {}", failure.message));
                format!(
                    "{}  {:?}{outcome}  to {heading}  run {}  release {}/{}{why}",
                    record.claim,
                    record.phase,
                    record.run,
                    record.release.namespace,
                    record.release.name
                )
            }
            Err(error) => format!("volume {}: {error}", volume.name_any()),
        };
        lines.push(line);
    }
    lines.sort();
    if lines.is_empty() {
        println!("no claim is or was under migration");
    }
    for line in lines {
        println!("{line}");
    }
    Ok(Exit::Done)
}
