//! What the Job was asked to do. One list of fields: each is the variable `PVMIGRATE_<FIELD>`, the
//! flag `--<field>`, and a value of the chart. Parsed once; `docs/options.md` is made from it.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::core::v1::ResourceRequirements;
use pvmigrate_record::order::{Attribute, Level};
use pvmigrate_record::record::Release;
use sha2::{Digest, Sha256};

mod cli;
mod docs;
mod error;
mod outside;
mod selection;
mod selector;
mod values;

pub use cli::{Output, PlanAsked, Verb, read};
pub use docs::options;
pub use error::ConfigError;
pub use selection::{class_of, class_of_volume};
pub use selector::LabelQuery;
pub use values::{
    BarePods, ClaimName, FreezeBy, Jobs, SetDefault, SetTemplates, SizeOf, SourceVolumes, Strings,
    Tolerations,
};

pub use values::quantity;
use values::{
    bandwidth, count, non_empty, resources, seconds, strings, threads, tolerations, word,
};

/// Heading of the fields that the chart fills in by itself.
const CHART: &str = "Where it is installed (the chart says it; elsewhere the defaults will do)";

/// Heading of the fields that the chart has no use for.
const OUTSIDE: &str = "Outside the cluster";

/// The Job's configuration. A list is comma separated, and its flag may be repeated. A flag that
/// is a yes or no needs no value on the command line.
#[derive(Clone, Debug, Args)]
// Settings that are a yes or no are just that.
#[allow(clippy::struct_excessive_bools)]
pub struct Config {
    /// The StorageClass whose claims are moved
    #[arg(long, value_name = "CLASS", value_parser = non_empty)]
    pub source_sc: String,
    /// The StorageClass that they are moved to
    #[arg(long, value_name = "CLASS", value_parser = non_empty)]
    pub dest_sc: String,
    /// Only claims of these namespaces; empty: of all
    #[arg(long, alias = "namespace", value_delimiter = ',', value_name = "NAME", value_parser = non_empty)]
    pub namespaces: Vec<String>,
    /// Only claims whose labels match, as kubectl's --selector reads it: `app=db,tier in (a,b)`
    #[arg(long, value_name = "QUERY")]
    pub selector: Option<LabelQuery>,
    /// Only these claims, as namespace/name
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE/NAME")]
    pub claims: Vec<ClaimName>,
    /// Not these claims, as namespace/name; the report lists them as left
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE/NAME")]
    pub exclude_claims: Vec<ClaimName>,
    /// Also claims that are of no class, and whose volume is of none
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub include_unclassed: bool,
    /// Any text: another one makes another run of the same question, for claims that came later
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub run_token: String,
    /// What becomes of a source volume after its claim was moved: keep (Released, with policy
    /// Retain) or delete (by its provisioner, once the application runs on the destination)
    #[arg(long, default_value = "keep", value_name = "WHAT", value_parser = word::<SourceVolumes>)]
    pub source_volumes: SourceVolumes,
    /// How large a claim is made, where not as before: namespace/name=20Gi, or *=20Gi for all that
    /// are not named; smaller only if what is in use fits and leaves 5 % free. A claim's annotation
    /// pvmigrate.io/size says the same, and goes before *
    #[arg(long, value_delimiter = ',', value_name = "CLAIM=SIZE")]
    pub sizes: Vec<SizeOf>,
    /// Make the destination the default class, and the source no longer, when the run is complete:
    /// false, true, or force, which takes that from a third class too
    #[arg(long, alias = "set-defaults", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "HOW", value_parser = word::<SetDefault>)]
    pub set_default: SetDefault,
    /// The source class need not exist: claims may name one that is gone
    #[arg(long, alias = "skip-source-validation", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub skip_source_check: bool,
    /// Check and plan, change nothing, and exit with 0 or 3
    #[arg(long, alias = "preflight-validation-only", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub preflight_only: bool,
    /// Go on whatever preflight says; what it said is logged as warnings
    #[arg(long, alias = "skip-preflight-validation", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub skip_preflight: bool,
    /// Copy while applications run, and only what changed since while they are stopped
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub warm: bool,
    /// Try claims again that failed in this run
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub retry_failed: bool,
    /// How workloads are stopped where their annotation pvmigrate.io/freeze does not say it: auto,
    /// scale (replicas go to 0 and come back) or hold (pods are deleted and kept away, the spec is
    /// not touched)
    #[arg(long, default_value = "auto", value_name = "HOW", value_parser = word::<FreezeBy>)]
    pub freeze: FreezeBy,
    /// Pods that nothing would make again: refuse, or recreate (they are deleted, and made again
    /// from their own manifests)
    #[arg(long, default_value = "refuse", value_name = "WHAT", value_parser = word::<BarePods>)]
    pub bare_pods: BarePods,
    /// Jobs that run, also those that a CronJob has started: wait until they are complete, as long as
    /// a freeze may take; or suspend them, which starts their pods again from the beginning
    #[arg(long, default_value = "wait", value_name = "WHAT", value_parser = word::<Jobs>)]
    pub jobs: Jobs,
    /// StatefulSets whose claims have moved, and whose volumeClaimTemplates name the old class:
    /// report what to do, or update (the set is made again around its pods, which run on)
    #[arg(long, default_value = "report", value_name = "WHAT", value_parser = word::<SetTemplates>)]
    pub stateful_set_templates: SetTemplates,
    /// How many groups are moved at the same time
    #[arg(long, default_value = "4", value_name = "NUMBER", value_parser = count)]
    pub parallelism_groups: NonZeroUsize,
    /// How many movers may be at work on one node; a group with more claims there goes when no
    /// other mover is there
    #[arg(long, default_value = "2", value_name = "NUMBER", value_parser = count)]
    pub parallelism_per_node: NonZeroUsize,
    /// How many groups may have their applications stopped on one node at the same time: those that
    /// stop and start side by side keep each other waiting. Others are staged meanwhile
    #[arg(long, default_value = "1", value_name = "NUMBER", value_parser = count)]
    pub parallelism_stopped_per_node: NonZeroUsize,
    /// Delete the pods of a set that is moved pod by pod, instead of evicting them
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub hold_ignore_budgets: bool,
    /// error, warn, info, debug or trace, or a filter such as info,kube=debug
    #[arg(long, alias = "verbose-copy", num_args = 0..=1, require_equals = true, default_value = "info", default_missing_value = "debug", value_name = "LEVEL")]
    pub log: String,

    /// The image of movers: the one that the Job itself runs
    #[arg(long, default_value = outside::IMAGE, hide_default_value = true)]
    pub image: String,
    /// Always, IfNotPresent or Never
    #[arg(long, default_value = "IfNotPresent", value_name = "POLICY")]
    pub image_pull_policy: String,
    /// Names of Secrets; movers need them in their claims' namespaces
    #[arg(long, value_delimiter = ',', value_name = "SECRET", value_parser = non_empty)]
    pub image_pull_secrets: Vec<String>,
    /// Resources of a mover's container: a Kubernetes ResourceRequirements, as JSON
    #[arg(long, value_name = "JSON", value_parser = resources)]
    pub mover_resources: Option<ResourceRequirements>,
    /// Capabilities of a mover beyond its own, such as SYS_ADMIN for trusted. xattrs
    #[arg(long, value_delimiter = ',', value_name = "CAPABILITY", value_parser = non_empty)]
    pub mover_extra_capabilities: Vec<String>,
    /// PriorityClass of movers
    #[arg(long, default_value = "", value_name = "NAME")]
    pub mover_priority_class_name: String,
    /// Tolerations of movers beside their consumers': as in a pod, as JSON
    #[arg(long, value_name = "JSON", value_parser = tolerations)]
    pub mover_tolerations: Option<Tolerations>,
    /// More labels for movers, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = strings)]
    pub mover_labels: Option<Strings>,
    /// More annotations for movers, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = strings)]
    pub mover_annotations: Option<Strings>,
    /// How much of a copy is compared with its source: none, metadata, written or full
    #[arg(long, default_value = "written", value_name = "LEVEL", value_parser = word::<Level>)]
    pub mover_verify: Level,
    /// Patterns of paths that are left out; in the variable one a line, as a comma may be part of
    /// one
    #[arg(long, value_delimiter = '\n', value_name = "PATTERN")]
    pub mover_exclude: Vec<String>,
    /// Bytes a second that each mover reads at most, such as 50Mi; unset: no limit
    #[arg(long, value_name = "QUANTITY", value_parser = bandwidth)]
    pub mover_bandwidth: Option<NonZeroU64>,
    /// What may be lost without an error: owner, mode, times, xattrs, acls, capabilities, flags,
    /// project, holes, specials
    #[arg(long, value_delimiter = ',', value_name = "ATTRIBUTE", value_parser = word::<Attribute>)]
    pub mover_lose: Vec<Attribute>,
    /// Copy security.selinux, which is otherwise left to the kubelet
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub mover_selinux: bool,
    /// How many threads copy
    #[arg(long, default_value = "4", value_name = "NUMBER", value_parser = threads)]
    pub mover_threads: NonZeroUsize,

    /// How long a workload may take to be Ready again
    #[arg(long, alias = "pod-ready-timeout", default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub pod_ready_seconds: u64,
    /// How long a destination may take to be provisioned, and its mover to run
    #[arg(long, default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub stage_seconds: u64,
    /// How long the consumers of a claim, and whatever else is removed, may take to be gone
    #[arg(long, default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub freeze_seconds: u64,
    /// How long a provisioner may take to delete a source volume
    #[arg(long, alias = "delete-pv-timeout", default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub volume_delete_seconds: u64,

    /// Fence with the admission policy alone, without the webhook: new pods and claims are
    /// refused, but nobody is kept from scaling what is stopped, or from deleting or resizing a
    /// claim. Outside the cluster this is also so where the webhook's Service does not exist
    #[arg(long, help_heading = OUTSIDE, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub no_fence: bool,
    /// The Helm release that this run belongs to
    #[arg(long, default_value = "pvmigrate", help_heading = CHART, value_name = "NAME")]
    pub release: String,
    /// Its namespace; by default the kubeconfig's
    #[arg(long, default_value = "", help_heading = CHART, value_name = "NAMESPACE")]
    pub release_namespace: String,
    /// The Job whose pod this is: its pods wait for each other
    #[arg(long, default_value = "", help_heading = CHART, value_name = "NAME")]
    pub job: String,
    /// The pod's name, holder of the Lease; by default this host's name and the process id
    #[arg(long, default_value = "", help_heading = CHART, value_name = "NAME")]
    pub pod: String,
    /// The Service of the webhook; by default the one that the chart makes for the release
    #[arg(long, default_value = "", help_heading = CHART, value_name = "NAME")]
    pub webhook_service: String,
    /// The Secret with the webhook's CA; by default the one that the chart makes for the release
    #[arg(long, default_value = "", help_heading = CHART, value_name = "NAME")]
    pub ca_secret: String,
    /// The ClusterRole that owns the fence, so that uninstalling collects it
    #[arg(long, default_value = "", help_heading = CHART, value_name = "NAME")]
    pub owner: String,
    /// The Role that owns the run's ConfigMap and Lease
    #[arg(long, default_value = "", help_heading = CHART, value_name = "NAME")]
    pub owner_role: String,
}

impl Config {
    /// What only several fields together tell.
    fn check(mut self) -> Result<Self, ConfigError> {
        if self.source_sc == self.dest_sc {
            return Err(ConfigError::EqualClasses(self.source_sc));
        }
        if self.preflight_only && self.skip_preflight {
            return Err(ConfigError::NothingToDo);
        }
        // The last line of a text may end as the others do.
        self.mover_exclude.retain(|pattern| !pattern.is_empty());
        Ok(self)
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
        let mut asked = serde_json::json!([
            self.release_namespace,
            self.release,
            self.source_sc,
            self.dest_sc,
            sorted(&self.namespaces),
            self.run_token,
        ]);
        let selection = self.selection();
        if !selection.is_empty()
            && let Some(asked) = asked.as_array_mut()
        {
            asked.push(selection.into());
        }
        let hash = Sha256::digest(asked.to_string());
        let short = hash
            .iter()
            .take(5)
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        format!("{short:010x}")
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

/// The same list, whatever its order was.
fn sorted<T: ToString>(names: &[T]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
pub mod tests;
