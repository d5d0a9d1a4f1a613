//! `kubectl replace --force --cascade=orphan` deletes a workload without its pods, and creates
//! another under its name that takes them over.

use anyhow::{Context, Result, ensure};
use pvmigrate_e2e::Test;
use pvmigrate_record::record::Record;
use pvmigrate_record::refusal;

/// Asks it in earnest, as a user, of every workload that is stopped: refused with exactly our
/// sentence, and all are as they were.
pub async fn is_refused(test: &Test, records: &[Record]) -> Result<()> {
    for record in records {
        let freezing = record.freeze.workloads.first().context("no workload")?;
        let workload = &freezing.workload;
        let what = format!("{}/{}", workload.resource, workload.name);
        let shown = async |how: &str| {
            let get = ["get", &what, "-n", &test.namespace, "-o", how];
            test.cluster.kubectl(&get).await?.success()
        };
        let file = std::env::temp_dir().join(format!("{}-{}", test.namespace, workload.name));
        std::fs::write(&file, shown("json").await?)?;
        let file_name = file.to_string_lossy();
        let replaced = test
            .cluster
            .kubectl(&[
                "replace",
                "--force",
                "--cascade=orphan",
                "--filename",
                &file_name,
                &format!("--as=system:serviceaccount:{}:user", test.namespace),
            ])
            .await?;
        std::fs::remove_file(&file)?;
        let wanted = format!(
            "Error from server (Forbidden): error when deleting \"{file_name}\": admission webhook \"deletions.fence.pvmigrate.io\" denied the request: {}\n",
            refusal::workload_delete(record, workload)
        );
        ensure!(
            replaced.code == Some(1) && replaced.stderr == wanted,
            "{replaced:?}\ninstead of\n{wanted:?}"
        );
        let now = shown("jsonpath={.metadata.uid}{.metadata.deletionTimestamp}").await?;
        ensure!(now == workload.uid, "{workload} has UID {now:?}");
    }
    Ok(())
}
