use std::collections::BTreeSet;

use super::*;
use crate::config::tests::config;
use crate::observe::Observed;
use crate::plan::plan;
use crate::plan::tests::{observed, workload};

/// Group, resource, verb, and whether only one object of some name.
type Granted = BTreeSet<(String, String, String, bool)>;

/// The rules of a template of the chart.
fn granted(template: &str) -> Granted {
    let mut all = Granted::new();
    let rules = template.split("- apiGroups:").skip(1);
    for rule in rules {
        let rule = format!("apiGroups:{}", rule.split("{{- with").next().unwrap());
        let [groups, resources, verbs] =
            ["apiGroups", "resources", "verbs"].map(|key| list(&rule, key));
        let named = rule.contains("resourceNames:");
        for group in &groups {
            for resource in &resources {
                for verb in &verbs {
                    let group = group.trim_matches('"').to_string();
                    all.insert((group, resource.clone(), verb.clone(), named));
                }
            }
        }
    }
    all
}

/// A list in one line, or with a line for each item.
fn list(rule: &str, key: &str) -> Vec<String> {
    let (_, after) = rule.split_once(&format!("{key}:")).unwrap();
    let after = after.trim_start_matches(' ');
    let words: Vec<&str> = match after.strip_prefix('[') {
        Some(inline) => inline.split_once(']').unwrap().0.split(',').collect(),
        None => after
            .lines()
            .skip(1)
            .map_while(|line| line.trim().strip_prefix("- "))
            .collect(),
    };
    words.iter().map(|word| word.trim().to_string()).collect()
}

fn table(roles: &[Where]) -> Granted {
    let rights = RIGHTS.iter().filter(|right| roles.contains(&right.at));
    rights
        .flat_map(|right| {
            let named = !matches!(
                right.at,
                Where::Everywhere
                    | Where::Workloads
                    | Where::BarePods
                    | Where::SetTemplates
                    | Where::SaveSets
                    | Where::Release
                    | Where::Jobs
            );
            right.verbs.iter().map(move |verb| {
                let verb = (*verb).to_string();
                (
                    right.group.to_string(),
                    right.resource.to_string(),
                    verb,
                    named,
                )
            })
        })
        .collect()
}

#[test]
fn the_chart_grants_what_the_table_says_and_nothing_else() {
    let everywhere = [
        Where::Everywhere,
        Where::Workloads,
        Where::ApiServers,
        Where::OwnClusterRole,
        Where::Classes,
        Where::BarePods,
        Where::SetTemplates,
    ];
    let role = include_str!("../../../../charts/pvmigrate/templates/job/clusterrole.yaml");
    assert_eq!(granted(role), table(&everywhere));
    let release = [
        Where::Release,
        Where::Jobs,
        Where::FenceClaims,
        Where::CaSecret,
        Where::SavedSets,
        Where::SaveSets,
        Where::WebhookService,
        Where::OwnRole,
    ];
    let role = include_str!("../../../../charts/pvmigrate/templates/job/role.yaml");
    assert_eq!(granted(role), table(&release));
}

fn asked(observed: &Observed, changes: &[(&str, &str)]) -> Vec<String> {
    let config = config(changes);
    let plan = plan(observed, &config);
    let needed = RIGHTS.iter().flat_map(|right| {
        let verbs = right
            .verbs
            .iter()
            .filter(|verb| is_needed(right, verb, &config, &plan));
        verbs
            .map(|verb| format!("{verb} {}", right.resource))
            .collect::<Vec<_>>()
    });
    needed.collect()
}

#[test]
fn only_what_the_plan_needs_is_asked_for() {
    let mut observed = observed(&["x"]);
    let none = asked(&observed, &[]);
    assert!(!none.contains(&"patch deployments".to_string()), "{none:?}");
    assert!(none.contains(&"list deployments".to_string()), "{none:?}");
    assert!(!none.contains(&"get clusterroles".to_string()), "{none:?}");
    observed.workloads = vec![workload("Deployment", "web", &["x"])];
    let one = asked(&observed, &[("PVMIGRATE_OWNER", "role")]);
    assert!(one.contains(&"patch deployments".to_string()), "{one:?}");
    assert!(!one.contains(&"patch statefulsets".to_string()), "{one:?}");
    assert!(one.contains(&"get clusterroles".to_string()), "{one:?}");
}

#[test]
fn missing_verbs_of_a_resource_are_one_sentence() {
    let of = |resource, at| {
        let mut all = RIGHTS.iter();
        all.find(|right| right.resource == resource && right.at == at)
            .unwrap()
    };
    let claims = of("persistentvolumeclaims", Where::Everywhere);
    let secret = of("secrets", Where::CaSecret);
    let said = sentences(
        &[(claims, "create"), (claims, "delete"), (secret, "get")],
        &config(&[]),
    );
    assert_eq!(
        said,
        [
            "the Job's ServiceAccount may not create, delete persistentvolumeclaims (API group core) in all namespaces: grant it, as the chart's roles do",
            "the Job's ServiceAccount may not get secrets pvmigrate-ca (API group core) in namespace ops: grant it, as the chart's roles do",
        ]
    );
}

#[test]
fn a_subresource_is_asked_for_as_admission_calls_it() {
    let log = RIGHTS
        .iter()
        .find(|right| right.resource == "pods/log")
        .unwrap();
    let asked = attributes(log, "get", &config(&[]));
    assert_eq!(asked.resource.as_deref(), Some("pods"));
    assert_eq!(asked.subresource.as_deref(), Some("log"));
}
