//! What the Job's rules say, read in three requests: most rights need not be asked for one by one.
//!
//! Rules are a hint: an authorizer may know more than it can list. So only what they grant is taken
//! from them; what they do not is asked for.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec,
};
use kube::api::PostParams;

use crate::cluster::{Cluster, retried};
use crate::stop::Stop;

/// A namespace in which nothing is granted, for no name of one has a dot: its rules are those that
/// hold everywhere.
const NOWHERE: &str = "no.such.namespace";

/// Rules by the namespace in which they hold; none is everywhere.
pub struct Rules(Vec<(Option<String>, Vec<ResourceRule>)>);

impl Rules {
    /// Those that hold everywhere, and those of these namespaces.
    pub async fn read(cluster: &Cluster, namespaces: [&str; 2]) -> Result<Self, Stop> {
        let [one, other] = namespaces;
        let (everywhere, in_one, in_other) = tokio::try_join!(
            rules_in(cluster, NOWHERE),
            rules_in(cluster, one),
            rules_in(cluster, other)
        )?;
        Ok(Self(vec![
            (None, everywhere),
            (Some(one.into()), in_one),
            (Some(other.into()), in_other),
        ]))
    }

    /// Whether what was read grants this.
    pub fn grant(&self, asked: &ResourceAttributes) -> bool {
        let here =
            |namespace: &Option<String>| namespace.is_none() || *namespace == asked.namespace;
        let rules = self.0.iter().filter(|(namespace, _)| here(namespace));
        rules
            .flat_map(|(_, rules)| rules)
            .any(|rule| grants(rule, asked))
    }
}

async fn rules_in(cluster: &Cluster, namespace: &str) -> Result<Vec<ResourceRule>, Stop> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.into()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let api = cluster.all::<SelfSubjectRulesReview>();
    let params = PostParams::default();
    match retried(|| api.create(&params, &review)).await {
        // Where some authorizer may deny what others grant, none of it is believed.
        Ok(answer) => Ok(answer
            .status
            .filter(|status| !status.incomplete)
            .map(|status| status.resource_rules)
            .unwrap_or_default()),
        // One that does not list its rules may answer questions all the same.
        Err(kube::Error::Api(_)) => Ok(Vec::new()),
        Err(other) => Err(other.into()),
    }
}

fn grants(rule: &ResourceRule, asked: &ResourceAttributes) -> bool {
    let is_in = |all: &Option<Vec<String>>, wanted: &str| {
        let mut all = all.iter().flatten();
        all.any(|one| one == "*" || one == wanted)
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (resource, name) = (text(&asked.resource), text(&asked.name));
    let is_named = match &rule.resource_names {
        Some(names) if !names.is_empty() => names.contains(&name),
        _ => true,
    };
    let is_of_it = match &asked.subresource {
        Some(sub) => {
            let both = format!("{resource}/{sub}");
            is_in(&rule.resources, &both) || is_in(&rule.resources, &format!("*/{sub}"))
        }
        None => is_in(&rule.resources, &resource),
    };
    is_named
        && is_of_it
        && is_in(&rule.api_groups, &text(&asked.group))
        && is_in(&Some(rule.verbs.clone()), &text(&asked.verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(resources: &[&str], names: &[&str]) -> ResourceRule {
        let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        ResourceRule {
            api_groups: Some(texts(&["", "apps"])),
            resources: Some(texts(resources)),
            resource_names: Some(texts(names)),
            verbs: texts(&["get", "patch"]),
        }
    }

    fn asked(verb: &str, resource: &str, name: Option<&str>) -> ResourceAttributes {
        let (resource, sub) = match resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_string())),
            None => (resource, None),
        };
        ResourceAttributes {
            group: Some("apps".into()),
            resource: Some(resource.into()),
            subresource: sub,
            verb: Some(verb.into()),
            name: name.map(str::to_string),
            namespace: name.map(|_| "ops".to_string()),
            ..ResourceAttributes::default()
        }
    }

    #[test]
    fn a_rule_grants_what_it_names_and_nothing_else() {
        let pods = rule(&["pods", "pods/log"], &[]);
        assert!(grants(&pods, &asked("get", "pods", None)));
        assert!(grants(&pods, &asked("get", "pods/log", None)));
        assert!(!grants(&pods, &asked("list", "pods", None)));
        assert!(!grants(&pods, &asked("get", "pods/exec", None)));
        assert!(!grants(&pods, &asked("get", "services", None)));
        let mut others = asked("get", "pods", None);
        others.group = Some("batch".into());
        assert!(!grants(&pods, &others));
        let one = rule(&["pods"], &["mine"]);
        assert!(grants(&one, &asked("get", "pods", Some("mine"))));
        assert!(!grants(&one, &asked("get", "pods", Some("yours"))));
        assert!(!grants(&one, &asked("get", "pods", None)), "all of them");
        let any = rule(&["*"], &[]);
        assert!(grants(&any, &asked("patch", "pods", None)));
        assert!(grants(&any, &asked("patch", "pods/log", None)));
        assert!(grants(
            &rule(&["*/log"], &[]),
            &asked("get", "pods/log", None)
        ));
    }

    #[test]
    fn the_rules_of_one_namespace_grant_nothing_elsewhere() {
        let rules = Rules(vec![
            (None, vec![rule(&["nodes"], &[])]),
            (Some("ops".into()), vec![rule(&["pods"], &[])]),
        ]);
        assert!(rules.grant(&asked("get", "nodes", None)));
        assert!(rules.grant(&asked("get", "nodes", Some("n"))));
        assert!(rules.grant(&asked("get", "pods", Some("p"))));
        assert!(!rules.grant(&asked("get", "pods", None)));
    }
}
