//! The fence's second layer: what the API server asks the webhook about.
//!
//! By name, so that a webhook that does not answer stops nobody but those who are meant. The
//! webhook decides; these conditions only keep away what it would never refuse.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pvmigrate_record::names;
use pvmigrate_record::record::Method;

use super::cel::replicas_up;
use super::objects::Scope;

mod on;
mod when;

use on::{cluster, core, is_cluster_scoped, made, of_a_run, on, resources, templates};
use when::{claim_changes, is_in, is_one_of, marks_change, starts, uncontrolled, volume_changes};

/// What the webhook is asked about, and when: one line of the table in
/// [`webhook`](Scope::webhook).
struct Question {
    name: &'static str,
    operations: &'static [&'static str],
    on: Vec<RuleWithOperations>,
    /// All of them have to be true.
    when: Vec<(&'static str, String)>,
}

impl Scope {
    #[rustfmt::skip]
    pub fn webhook(&self) -> ValidatingWebhookConfiguration {
        const CREATE: &[&str] = &["CREATE"];
        const UPDATE: &[&str] = &["UPDATE"];
        const DELETE: &[&str] = &["DELETE"];
        const ITSELF: &[&str] = &[""];
        // Who writes a status may write labels and annotations with it. The conditions keep all
        // else that is written there from being asked about.
        const MARKED: &[&str] = &["", "/status"];
        // Of pods only the making is asked about: they must be able to end.
        let frozen = || self.stopped(&[Method::Scale, Method::Hold, Method::Suspend]);
        let stopped = || self.stopped(&[Method::Scale, Method::Suspend]);
        let scaled = || self.stopped(&[Method::Scale]);
        let questions = [
            ask("pods", CREATE, core("pods"), [("mounts-or-is-fenced", self.pod_mounts())]),
            ask("templates", CREATE, templates(), [("its-pods-mount-a-fenced-claim", self.template_mounts())]),
            ask("made-templates", CREATE, made(), [("nobody-controls-it", uncontrolled()), ("its-pods-mount-a-fenced-claim", self.template_mounts())]),
            ask("claim-templates", CREATE, on("apps", "v1", ["statefulsets"]), [("its-claims-are-fenced", self.has_claims())]),

            ask("names", CREATE, resources(frozen(), ITSELF), [("is-frozen", is_one_of(frozen()))]),
            ask("deletions", DELETE, resources(frozen(), ITSELF), [("is-frozen", is_one_of(frozen()))]),
            ask("marks", UPDATE, resources(frozen(), MARKED), [("is-frozen", is_one_of(frozen())), ("changes-a-mark", marks_change())]),
            ask("starts", UPDATE, resources(stopped(), ITSELF), [("is-stopped", is_one_of(stopped())), ("starts-again", starts())]),
            ask("scales", UPDATE, resources(scaled(), &["/scale"]), [("is-stopped", is_one_of(scaled())), ("goes-up", replicas_up())]),

            ask("claims", CREATE, core("persistentvolumeclaims"), [("takes-what-is-fenced", self.takes())]),
            ask("claim-changes", UPDATE, on("", "v1", ["persistentvolumeclaims", "persistentvolumeclaims/status"]), [("is-ours", self.is_our_claim()), ("changes-size-or-mark", claim_changes())]),
            ask("claim-deletions", DELETE, core("persistentvolumeclaims"), [("is-ours", self.is_our_claim())]),
            ask("snapshots", CREATE, on("snapshot.storage.k8s.io", "*", ["volumesnapshots"]), [("of-a-fenced-claim", self.snapshots())]),

            ask("volumes", UPDATE, cluster("", ["persistentvolumes", "persistentvolumes/status"]), [("is-ours", is_in(&self.volumes)), ("changes-what-we-rely-on", volume_changes())]),
            ask("volume-deletions", DELETE, cluster("", ["persistentvolumes"]), [("is-ours", is_in(&self.volumes))]),
            ask("namespaces", DELETE, cluster("", ["namespaces"]), [("is-needed", is_in(self.claims.keys().chain([&self.setting.release.namespace])))]),
            ask("classes", DELETE, cluster("storage.k8s.io", ["storageclasses"]), [("is-a-destination", is_in(&self.classes))]),
        ];
        let asked = questions.into_iter().filter(|question| !question.on.is_empty());
        ValidatingWebhookConfiguration {
            metadata: self.metadata(),
            webhooks: Some(asked.map(|question| self.entry(question)).collect()),
        }
    }

    fn entry(&self, question: Question) -> ValidatingWebhook {
        let spared = self.not_spared(names::LAYER_WEBHOOK);
        let more = question.when.into_iter();
        let more = more.map(|(name, expression)| MatchCondition {
            name: name.into(),
            expression,
        });
        let operations: Vec<String> = question.operations.iter().map(|&o| o.into()).collect();
        let volumes = question.name.starts_with("volume");
        // Cluster-scoped objects are in no namespace, and named by the conditions.
        let namespaces = if question.on.iter().any(is_cluster_scoped) {
            LabelSelector::default()
        } else {
            self.namespaces()
        };
        let rules = question.on.into_iter().map(|rule| RuleWithOperations {
            operations: Some(operations.clone()),
            ..rule
        });
        ValidatingWebhook {
            name: format!("{}.fence.pvmigrate.io", question.name),
            admission_review_versions: vec!["v1".into()],
            client_config: WebhookClientConfig {
                ca_bundle: Some(ByteString(self.ca.clone())),
                service: Some(ServiceReference {
                    name: self.setting.webhook_service.clone(),
                    namespace: self.setting.release.namespace.clone(),
                    path: Some(format!("/fence/{}", self.generation)),
                    port: Some(names::WEBHOOK_PORT),
                }),
                url: None,
            },
            failure_policy: Some("Fail".into()),
            match_policy: Some("Equivalent".into()),
            side_effects: "None".into(),
            timeout_seconds: Some(5),
            namespace_selector: Some(namespaces),
            object_selector: Some(if volumes {
                of_a_run()
            } else {
                LabelSelector::default()
            }),
            match_conditions: Some(std::iter::once(spared).chain(more).collect()),
            rules: Some(rules.collect()),
        }
    }
}

fn ask<const N: usize>(
    name: &'static str,
    operations: &'static [&'static str],
    on: Vec<RuleWithOperations>,
    when: [(&'static str, String); N],
) -> Question {
    Question {
        name,
        operations,
        on,
        when: when.into(),
    }
}
