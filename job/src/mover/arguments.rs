//! What a mover is told when it starts.

use k8s_openapi::api::core::v1::Pod;
use pvmigrate_record::names;
use pvmigrate_record::order::{Level, THREADS};
use pvmigrate_record::record::Record;

use crate::config::Config;

/// Whether a mover, of a Job before, was told to work otherwise than it would be now.
pub fn is_told_otherwise(pod: &Pod, record: &Record, config: &Config) -> bool {
    let wanted = arguments(record, config);
    let spec = pod.spec.iter();
    let mut containers = spec.flat_map(|spec| &spec.containers);
    // What admission has added beside it is told nothing by us.
    !containers.any(|container| container.args.as_ref() == Some(&wanted))
}

/// Where it finds the volumes, unless these are mounted, and what differs from what it does by
/// itself.
pub fn arguments(record: &Record, config: &Config) -> Vec<String> {
    let mut all = vec!["serve".to_string()];
    let mut say = |flag: &str, value: &str| all.push(format!("--{flag}={value}"));
    if record.manifest.is_block() {
        say("source", names::SOURCE_DEVICE);
        say("destination", names::DESTINATION_DEVICE);
    }
    if config.mover_verify != Level::default() {
        say("verify", config.mover_verify.name());
    }
    for pattern in &config.mover_exclude {
        say("exclude", pattern);
    }
    if let Some(bandwidth) = config.mover_bandwidth {
        say("bandwidth", &bandwidth.to_string());
    }
    for attribute in &config.mover_lose {
        say("lose", attribute.name());
    }
    if config.mover_threads != THREADS {
        say("threads", &config.mover_threads.to_string());
    }
    if config.mover_selinux {
        all.push("--selinux".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::mover::tests::record;

    #[test]
    fn a_mover_is_told_what_differs_from_its_defaults() {
        assert_eq!(arguments(&record("Filesystem"), &config(&[])), ["serve"]);
        assert_eq!(
            arguments(&record("Block"), &config(&[])),
            [
                "serve",
                "--source=/dev/source",
                "--destination=/dev/destination"
            ]
        );
        let config = config(&[
            ("PVMIGRATE_MOVER_VERIFY", "none"),
            ("PVMIGRATE_MOVER_EXCLUDE", "-a\nb,c"),
            ("PVMIGRATE_MOVER_BANDWIDTH", "1Mi"),
            ("PVMIGRATE_MOVER_LOSE", "acls,owner"),
            ("PVMIGRATE_MOVER_SELINUX", "true"),
            ("PVMIGRATE_MOVER_THREADS", "2"),
        ]);
        let expected = "serve --verify=none --exclude=-a --exclude=b,c --bandwidth=1048576 --lose=acls --lose=owner --threads=2 --selinux";
        assert_eq!(
            arguments(&record("Filesystem"), &config).join(" "),
            expected
        );
    }

    #[test]
    fn a_mover_of_other_settings_is_known() {
        let (record, settings) = (record("Filesystem"), config(&[]));
        let pod = crate::mover::mover_pod(&record, &settings, &crate::mover::Placement::default());
        assert!(!is_told_otherwise(&pod, &record, &settings));
        let others = config(&[("PVMIGRATE_MOVER_VERIFY", "full")]);
        assert!(is_told_otherwise(&pod, &record, &others));
    }
}
