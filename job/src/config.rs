//! What the Job was asked to do, from `PVMIGRATE_…` in its environment. Parsed once.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use pvmigrate_record::order::{Attribute, Level, THREADS};
use pvmigrate_record::record::Release;
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::quantity::bytes;

/// With less, a mover would wait so long for its next 4 MiB that it seems to hang.
const LEAST_BANDWIDTH: u64 = 64 << 10;

/// The Job's configuration. Each field is the environment variable `PVMIGRATE_<FIELD>`. Flat,
/// because envy cannot parse numbers or booleans in nested structs.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// The StorageClass whose claims are moved.
    pub source_sc: String,
    /// The StorageClass that they are moved to.
    pub dest_sc: String,
    /// Only claims of these namespaces; empty: of all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Any text: another one makes another run of the same question.
    #[serde(default)]
    pub run_token: String,
    /// What becomes of a source volume after its claim was moved.
    #[serde(default)]
    pub source_volumes: SourceVolumes,
    /// Try claims again that failed in this run.
    #[serde(default)]
    pub retry_failed: bool,
    /// The Helm release, and where it is installed.
    pub release: String,
    pub release_namespace: String,
    /// The Job's own name: its pods wait for each other.
    #[serde(default)]
    pub job: String,
    /// The pod's name: holder of the Lease.
    pub pod: String,
    /// The image of the mover: this very one.
    pub image: String,
    #[serde(default = "if_not_present")]
    pub image_pull_policy: String,
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// The Service of the webhook, and the Secret with its CA, in the release namespace.
    pub webhook_service: String,
    pub ca_secret: String,
    /// The ClusterRole that owns the fence, so that uninstalling collects it.
    #[serde(default)]
    pub owner: String,
    /// The Role that owns the run's ConfigMap and Lease.
    #[serde(default)]
    pub owner_role: String,
    /// Resources of a mover's container: a Kubernetes ResourceRequirements, as JSON.
    #[serde(default)]
    pub mover_resources: String,
    /// Capabilities of a mover beyond its own, for example `SYS_ADMIN` for `trusted.` xattrs.
    #[serde(default)]
    pub mover_extra_capabilities: Vec<String>,
    /// How much of a copy is compared with its source.
    #[serde(default)]
    pub mover_verify: Level,
    /// Patterns of paths that are left out, one a line: a comma may be part of one.
    #[serde(default, deserialize_with = "lines")]
    pub mover_exclude: Vec<String>,
    /// Bytes a second that each mover reads at most, a quantity such as `50Mi`; empty: no limit.
    #[serde(default)]
    pub mover_bandwidth: String,
    /// What may be lost without an error.
    #[serde(default)]
    pub mover_lose: Vec<Attribute>,
    /// Keep `security.selinux`, which is otherwise left to the kubelet.
    #[serde(default)]
    pub mover_selinux: bool,
    #[serde(default = "threads")]
    pub mover_threads: NonZeroUsize,
    /// How long each of these may take, in seconds.
    #[serde(default = "five_minutes")]
    pub stage_seconds: u64,
    #[serde(default = "five_minutes")]
    pub freeze_seconds: u64,
    #[serde(default = "five_minutes")]
    pub pod_ready_seconds: u64,
    #[serde(default = "five_minutes")]
    pub volume_delete_seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceVolumes {
    /// Released, with policy Retain: everything has a way back.
    #[default]
    Keep,
    /// Given to its provisioner to delete, once its application runs on the destination.
    Delete,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} is missing: set it, or use the chart, which does")]
    Missing(String),
    #[error("{variable} is {value:?}: {why}")]
    Value {
        variable: String,
        value: String,
        why: String,
    },
    #[error("{0}")]
    Environment(String),
    #[error("sourceSC and destSC are both {0:?}: name two different StorageClasses")]
    EqualClasses(String),
    #[error("PVMIGRATE_MOVER_RESOURCES is not a ResourceRequirements: {0}")]
    Resources(serde_json::Error),
    #[error(
        "PVMIGRATE_MOVER_BANDWIDTH is {0:?}, which is no number of bytes a second, or less than 64Ki: write it as a quantity such as 50Mi, or leave it empty for no limit"
    )]
    Bandwidth(String),
}

impl Config {
    /// Reads and checks the environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_pairs(std::env::vars())
    }

    fn from_pairs(pairs: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        // An empty variable is one that is not set: charts render lists and names that way.
        let pairs: Vec<_> = pairs.filter(|(_, value)| !value.is_empty()).collect();
        let config = Self::parse(&pairs).map_err(|error| match error {
            envy::Error::MissingValue(field) => {
                ConfigError::Missing(format!("PVMIGRATE_{}", field.to_uppercase()))
            }
            envy::Error::Custom(why) => Self::blame(&pairs, why),
        })?;
        if config.source_sc == config.dest_sc {
            return Err(ConfigError::EqualClasses(config.source_sc));
        }
        config.mover_resources()?;
        config.mover_bandwidth()?;
        Ok(config)
    }

    fn parse(pairs: &[(String, String)]) -> envy::Result<Self> {
        envy::prefixed("PVMIGRATE_").from_iter(pairs.iter().cloned())
    }

    /// Names the variable whose value is wrong, which envy does not always do: the one without
    /// which this is not what is wrong.
    fn blame(pairs: &[(String, String)], why: String) -> ConfigError {
        let error = envy::Error::Custom(why.clone());
        for (number, (variable, value)) in pairs.iter().enumerate() {
            let mut others = pairs.to_vec();
            others.remove(number);
            if Self::parse(&others).err().as_ref() != Some(&error) {
                return ConfigError::Value {
                    variable: variable.clone(),
                    value: value.clone(),
                    why,
                };
            }
        }
        ConfigError::Environment(why)
    }

    pub fn mover_resources(
        &self,
    ) -> Result<Option<k8s_openapi::api::core::v1::ResourceRequirements>, ConfigError> {
        if self.mover_resources.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&self.mover_resources)
            .map(Some)
            .map_err(ConfigError::Resources)
    }

    pub fn mover_bandwidth(&self) -> Result<Option<NonZeroU64>, ConfigError> {
        if self.mover_bandwidth.is_empty() {
            return Ok(None);
        }
        bytes(&self.mover_bandwidth)
            .and_then(|bytes| NonZeroU64::new(u64::try_from(bytes).ok()?))
            .filter(|bytes| bytes.get() >= LEAST_BANDWIDTH)
            .map(Some)
            .ok_or_else(|| ConfigError::Bandwidth(self.mover_bandwidth.clone()))
    }

    pub fn release(&self) -> Release {
        Release {
            namespace: self.release_namespace.clone(),
            name: self.release.clone(),
        }
    }

    /// The run: a hash of release, both classes, the selection of claims and the token, and of
    /// nothing else, so that a Job that is rendered again is the same run.
    pub fn run(&self) -> String {
        let mut namespaces = self.namespaces.clone();
        namespaces.sort();
        namespaces.dedup();
        let asked = serde_json::json!([
            self.release_namespace,
            self.release,
            self.source_sc,
            self.dest_sc,
            namespaces,
            self.run_token,
        ]);
        let hash = Sha256::digest(asked.to_string());
        let short = hash
            .iter()
            .take(5)
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        format!("{short:010x}")
    }

    /// Whether claims of this namespace are asked for.
    pub fn selects(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace)
    }

    pub fn stage_limit(&self) -> Duration {
        Duration::from_secs(self.stage_seconds)
    }

    pub fn freeze_limit(&self) -> Duration {
        Duration::from_secs(self.freeze_seconds)
    }

    pub fn pod_ready_limit(&self) -> Duration {
        Duration::from_secs(self.pod_ready_seconds)
    }

    pub fn volume_delete_limit(&self) -> Duration {
        Duration::from_secs(self.volume_delete_seconds)
    }
}

fn if_not_present() -> String {
    "IfNotPresent".into()
}

fn five_minutes() -> u64 {
    300
}

fn threads() -> NonZeroUsize {
    THREADS
}

fn lines<'de, D: Deserializer<'de>>(text: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(text)?;
    Ok(text.lines().map(ToString::to_string).collect())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn pairs(changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all: std::collections::BTreeMap<&str, &str> = [
            ("PVMIGRATE_SOURCE_SC", "a"),
            ("PVMIGRATE_DEST_SC", "b"),
            ("PVMIGRATE_RELEASE", "pvmigrate"),
            ("PVMIGRATE_RELEASE_NAMESPACE", "ops"),
            ("PVMIGRATE_POD", "pvmigrate-x"),
            ("PVMIGRATE_IMAGE", "pvmigrate:dev"),
            ("PVMIGRATE_WEBHOOK_SERVICE", "pvmigrate-webhook"),
            ("PVMIGRATE_CA_SECRET", "pvmigrate-ca"),
        ]
        .into();
        all.extend(changes.iter().copied());
        all.into_iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    pub fn config(changes: &[(&str, &str)]) -> Config {
        parse(changes).unwrap()
    }

    fn parse(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_pairs(pairs(changes).into_iter())
    }

    #[test]
    fn lists_numbers_and_empty_variables_are_read() {
        let config = config(&[
            ("PVMIGRATE_NAMESPACES", "x,y"),
            ("PVMIGRATE_STAGE_SECONDS", "7"),
            ("PVMIGRATE_SOURCE_VOLUMES", "delete"),
            ("PVMIGRATE_RUN_TOKEN", ""),
        ]);
        assert_eq!(config.namespaces, ["x", "y"]);
        assert_eq!(config.stage_limit(), Duration::from_secs(7));
        assert_eq!(config.source_volumes, SourceVolumes::Delete);
        assert!(config.selects("x") && !config.selects("z"));
    }

    #[test]
    fn how_movers_work_is_read() {
        let plain = config(&[]);
        assert_eq!(plain.mover_verify, Level::Written);
        assert_eq!(plain.mover_bandwidth().unwrap(), None);
        let config = config(&[
            ("PVMIGRATE_MOVER_VERIFY", "full"),
            ("PVMIGRATE_MOVER_EXCLUDE", "cache\n{a,b}/*.tmp"),
            ("PVMIGRATE_MOVER_BANDWIDTH", "50Mi"),
            ("PVMIGRATE_MOVER_LOSE", "acls,specials"),
            ("PVMIGRATE_MOVER_SELINUX", "true"),
            ("PVMIGRATE_MOVER_THREADS", "16"),
        ]);
        assert_eq!(config.mover_verify, Level::Full);
        assert_eq!(config.mover_exclude, ["cache", "{a,b}/*.tmp"]);
        assert_eq!(config.mover_bandwidth().unwrap(), NonZeroU64::new(50 << 20));
        assert_eq!(config.mover_lose, [Attribute::Acls, Attribute::Specials]);
        assert!(config.mover_selinux);
        assert_eq!(config.mover_threads.get(), 16);
    }

    #[test]
    fn a_setting_of_movers_that_cannot_be_is_named_with_what_can() {
        for (variable, given, said) in [
            (
                "MOVER_VERIFY",
                "some",
                "`none`, `metadata`, `written`, `full`",
            ),
            (
                "MOVER_LOSE",
                "acls,colour",
                "expected one of `owner`, `mode`",
            ),
            (
                "MOVER_BANDWIDTH",
                "fast",
                "write it as a quantity such as 50Mi",
            ),
            ("MOVER_BANDWIDTH", "50K", "leave it empty for no limit"),
            ("MOVER_BANDWIDTH", "50", "less than 64Ki"),
            ("MOVER_THREADS", "0", "nonzero"),
        ] {
            let variable = format!("PVMIGRATE_{variable}");
            let error = parse(&[(&variable, given)]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(error.contains(&variable), "{error}");
        }
    }

    #[test]
    fn equal_classes_are_refused_in_a_sentence() {
        let error = parse(&[("PVMIGRATE_DEST_SC", "a")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sourceSC and destSC are both \"a\": name two different StorageClasses"
        );
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = parse(&[("PVMIGRATE_SOURCE_SC", "")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "PVMIGRATE_SOURCE_SC is missing: set it, or use the chart, which does"
        );
    }

    #[test]
    fn the_run_is_named_by_the_question_and_nothing_else() {
        let run = config(&[]).run();
        assert_eq!(
            run,
            config(&[("PVMIGRATE_IMAGE", "other"), ("PVMIGRATE_POD", "p")]).run()
        );
        assert_eq!(
            config(&[("PVMIGRATE_NAMESPACES", "x,y")]).run(),
            config(&[("PVMIGRATE_NAMESPACES", "y,x")]).run()
        );
        for change in [
            ("PVMIGRATE_DEST_SC", "c"),
            ("PVMIGRATE_RUN_TOKEN", "2"),
            ("PVMIGRATE_NAMESPACES", "x"),
            ("PVMIGRATE_RELEASE", "r"),
        ] {
            assert_ne!(run, config(&[change]).run(), "{change:?}");
        }
    }
}
