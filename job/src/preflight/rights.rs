//! Whether the Job may do what it will do. One table of all that it ever does; a test holds the
//! chart's roles against it.

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use pvmigrate_record::names;
use pvmigrate_record::record::Freezing;

use super::Asked;
use crate::cluster::{Cluster, retried};
use crate::config::{BarePods, Config, SetDefault, SetTemplates};
use crate::plan::Plan;
use crate::stop::Stop;

mod rules;
mod table;

use rules::Rules;
use table::{RIGHTS, Right, Where};

/// How many questions are asked at the same time.
const AT_ONCE: usize = 16;

pub fn are_granted(asked: Asked<'_>) -> BoxFuture<'_, Result<Vec<String>, Stop>> {
    Box::pin(async move {
        if asked.plan.groups.is_empty() {
            return Ok(Vec::new());
        }
        missing(&asked.run.cluster, &asked.run.config, asked.plan).await
    })
}

/// The rights that this plan needs and the Job does not have, a sentence for each resource.
pub async fn missing(cluster: &Cluster, config: &Config, plan: &Plan) -> Result<Vec<String>, Stop> {
    let rules = Rules::read(cluster, ["default", &config.release_namespace]).await?;
    let mut asked = Vec::new();
    for right in RIGHTS {
        for verb in right.verbs.iter().copied() {
            let attributes = attributes(right, verb, config);
            if is_needed(right, verb, config, plan) && !rules.grant(&attributes) {
                asked.push(async move {
                    let granted = may(cluster, attributes).await?;
                    Ok::<_, Stop>((!granted).then_some((right, verb)))
                });
            }
        }
    }
    let answers = stream::iter(asked).buffered(AT_ONCE);
    let answers: Vec<Option<(&Right, &str)>> = answers.try_collect().await?;
    let refused: Vec<_> = answers.into_iter().flatten().collect();
    Ok(sentences(&refused, config))
}

async fn may(cluster: &Cluster, attributes: ResourceAttributes) -> Result<bool, Stop> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api = cluster.all::<SelfSubjectAccessReview>();
    let params = PostParams::default();
    let answer = retried(|| api.create(&params, &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Workloads are written only if they are stopped, and the chart's roles are read only to own what
/// is made.
fn is_needed(right: &Right, verb: &str, config: &Config, plan: &Plan) -> bool {
    match right.at {
        Where::Workloads => {
            let mut all = plan.groups.iter().flat_map(|group| &group.freeze);
            let is_it = |f: &Freezing| {
                let resource = f.workload.resource.as_str();
                // The Jobs that a CronJob has started are written with it.
                let is_below = (resource, right.resource) == ("cronjobs", "jobs");
                (resource == right.resource || is_below) && f.workload.group() == right.group
            };
            verb == "list" || all.any(is_it)
        }
        Where::OwnClusterRole => !config.owner.is_empty(),
        Where::OwnRole => !config.owner_role.is_empty(),
        Where::Jobs => !config.job.is_empty(),
        Where::Classes => config.set_default != SetDefault::False,
        Where::BarePods => config.bare_pods == BarePods::Recreate,
        Where::SetTemplates | Where::SaveSets => {
            config.stateful_set_templates == SetTemplates::Update
        }
        Where::Everywhere
        | Where::ApiServers
        | Where::Release
        | Where::FenceClaims
        | Where::CaSecret
        | Where::SavedSets
        | Where::WebhookService => true,
    }
}

fn attributes(right: &Right, verb: &str, config: &Config) -> ResourceAttributes {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_string())),
        None => (right.resource, None),
    };
    let (namespace, name) = place(right.at, config);
    ResourceAttributes {
        group: Some(right.group.into()),
        resource: Some(resource.into()),
        subresource,
        verb: Some(verb.into()),
        namespace,
        name,
        ..ResourceAttributes::default()
    }
}

/// Namespace and name that a right is about; none is all.
fn place(at: Where, config: &Config) -> (Option<String>, Option<String>) {
    let release = Some(config.release_namespace.clone());
    match at {
        Where::Everywhere | Where::Workloads | Where::BarePods | Where::SetTemplates => {
            (None, None)
        }
        Where::ApiServers => (Some("default".into()), Some("kubernetes".into())),
        Where::OwnClusterRole => (None, Some(config.owner.clone())),
        Where::Classes if config.set_default == SetDefault::Force => (None, None),
        Where::Classes => (None, Some(config.dest_sc.clone())),
        Where::OwnRole => (release, Some(config.owner_role.clone())),
        Where::Release | Where::Jobs | Where::SaveSets => (release, None),
        Where::SavedSets => (release, Some(names::renewed_sets(&config.release))),
        Where::FenceClaims => (release, Some(names::fence_claims(&config.release()))),
        Where::CaSecret => (release, Some(config.ca_secret.clone())),
        Where::WebhookService => (release, Some(config.webhook_service.clone())),
    }
}

fn sentences(refused: &[(&Right, &str)], config: &Config) -> Vec<String> {
    let same = |(one, _): &(&Right, &str), (other, _): &(&Right, &str)| std::ptr::eq(*one, *other);
    let by_right = refused.chunk_by(same);
    by_right
        .map(|missing| {
            let right = missing[0].0;
            let verbs: Vec<&str> = missing.iter().map(|(_, verb)| *verb).collect();
            let (namespace, name) = place(right.at, config);
            let group = if right.group.is_empty() { "core" } else { right.group };
            let name = name.map_or_else(String::new, |name| format!(" {name}"));
            let scope = namespace.map_or_else(
                || "in all namespaces".to_string(),
                |namespace| format!("in namespace {namespace}"),
            );
            format!(
                "the Job's ServiceAccount may not {} {}{name} (API group {group}) {scope}: grant it, as the chart's roles do",
                verbs.join(", "),
                right.resource
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
