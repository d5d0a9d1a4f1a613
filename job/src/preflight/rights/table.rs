//! All that the Job asks the API server for. `templates/job/clusterrole.yaml` and `role.yaml` of the
//! chart grant exactly this.

/// What a right is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Everywhere,
    /// Everywhere, for kinds that can be stopped: only those in the plan are written.
    Workloads,
    /// The EndpointSlice with the addresses of the API servers.
    ApiServers,
    OwnClusterRole,
    /// The destination's class, where it is to become the default; by force, any.
    Classes,
    /// The manifests of bare pods, where those are made again.
    BarePods,
    /// Sets that are made again around their pods, where that is asked for.
    SetTemplates,
    /// The Secret with the manifests of those, and making it.
    SavedSets,
    SaveSets,
    /// The release's namespace.
    Release,
    /// The Job itself, there.
    Jobs,
    /// The ServiceAccount whose annotations list the fenced claims.
    FenceClaims,
    CaSecret,
    WebhookService,
    OwnRole,
}

#[derive(Debug)]
pub struct Right {
    pub group: &'static str,
    /// With its subresource, after a slash.
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
    pub at: Where,
}

const fn right(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    at: Where,
) -> Right {
    Right {
        group,
        resource,
        verbs,
        at,
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const ROLES: &str = "rbac.authorization.k8s.io";
const SNAPSHOTS: &str = "snapshot.storage.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const MADE: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
const STOPPED: &[&str] = &["get", "list", "watch", "patch"];
const WATCHED: &[&str] = &["get", "list", "watch"];
const READ: &[&str] = &["get", "list"];

#[rustfmt::skip]
pub const RIGHTS: &[Right] = {
    use Where::{
        ApiServers, BarePods, CaSecret, Classes, Everywhere, FenceClaims, Jobs, OwnClusterRole, OwnRole,
        SaveSets, SavedSets, SetTemplates,
        Release, WebhookService, Workloads,
    };
    &[
        right("", "persistentvolumes", STOPPED, Everywhere),
        right("", "persistentvolumeclaims", MADE, Everywhere),
        right("", "pods", MADE, Everywhere),
        right("", "pods/log", &["get"], Everywhere),
        right("", "pods/eviction", &["create"], Everywhere),
        right("", "events", &["list", "watch"], Everywhere),
        right("", "nodes", READ, Everywhere),
        right("", "namespaces", READ, Everywhere),
        right("", "resourcequotas", &["list"], Everywhere),
        right("", "serviceaccounts", &["get"], Everywhere),
        right("apps", "deployments", STOPPED, Workloads),
        right("apps", "statefulsets", STOPPED, Workloads),
        right("apps", "replicasets", STOPPED, Workloads),
        right("apps", "daemonsets", STOPPED, Workloads),
        right("batch", "jobs", STOPPED, Workloads),
        right("batch", "cronjobs", STOPPED, Workloads),
        right("", "replicationcontrollers", STOPPED, Workloads),
        right("autoscaling", "horizontalpodautoscalers", &["list"], Everywhere),
        right("keda.sh", "scaledobjects", &["list"], Everywhere),
        right("policy", "poddisruptionbudgets", &["list"], Everywhere),
        right(STORAGE, "storageclasses", READ, Everywhere),
        right(STORAGE, "storageclasses", &["patch"], Classes),
        right("", "secrets", &["get", "create", "delete"], BarePods),
        right("apps", "statefulsets", &["create", "delete"], SetTemplates),
        right(STORAGE, "volumeattachments", WATCHED, Everywhere),
        right(STORAGE, "csidrivers", &["list"], Everywhere),
        right(STORAGE, "csinodes", &["list"], Everywhere),
        right(STORAGE, "csistoragecapacities", &["list"], Everywhere),
        right(SNAPSHOTS, "volumesnapshots", &["list"], Everywhere),
        right(ADMISSION, "validatingwebhookconfigurations", MADE, Everywhere),
        right(ADMISSION, "validatingadmissionpolicies", MADE, Everywhere),
        right(ADMISSION, "validatingadmissionpolicybindings", MADE, Everywhere),
        right("discovery.k8s.io", "endpointslices", READ, ApiServers),
        right(ROLES, "clusterroles", &["get"], OwnClusterRole),
        right("", "configmaps", &["get", "list", "create", "patch", "delete"], Release),
        right("", "serviceaccounts", &["create"], Release),
        right("", "serviceaccounts", &["get", "list", "watch", "patch", "delete"], FenceClaims),
        right("coordination.k8s.io", "leases", &["get", "create", "patch", "update"], Release),
        right("", "secrets", WATCHED, CaSecret),
        right("", "secrets", &["get", "patch", "delete"], SavedSets),
        right("", "secrets", &["create"], SaveSets),
        right("", "services", &["get"], WebhookService),
        right("batch", "jobs", &["get", "patch"], Jobs),
        right(ROLES, "roles", &["get"], OwnRole),
    ]
};
