use serde_json::{Value, json};

use super::*;
use crate::config::tests::config;
use crate::mover::tests::record;
use crate::plan::tests::from;
use crate::pods::SeenPod;

/// A claim that is staged on a volume of this driver.
fn claim(name: &str, driver: &str) -> Migration {
    let mut record = record("Filesystem");
    record.claim.name = name.into();
    record.claim.uid = format!("uid-{name}");
    record.manifest.access_modes = vec!["ReadWriteOnce".into()];
    let mut claim = Migration::new(record, from(json!({"metadata": {"name": "old"}})));
    let source = json!({"driver": driver, "volumeHandle": name});
    claim.destination_state = Some(from(
        json!({"metadata": {"name": format!("new-{name}")}, "spec": {"csi": source}}),
    ));
    claim
}

fn seen(name: &str, node: &str, labels: &Value, claims: &[&str]) -> SeenPod {
    let pod: Pod = from(json!({
        "metadata": {"name": name, "uid": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [], "tolerations": [{"key": "db", "operator": "Exists"}],
            "securityContext": {"seLinuxOptions": {"level": "s0:c1"}}}
    }));
    SeenPod {
        name: name.into(),
        uid: name.into(),
        node: Some(node.into()),
        claims: claims.iter().map(ToString::to_string).collect(),
        ended: false,
        deleted: false,
        pod,
    }
}

/// Claims with a mover each on these nodes, and what mounts them.
fn staged(claims: &[(&str, &str)], consumers: Vec<SeenPod>) -> (Group, Pods) {
    let mut pods = Pods::default();
    let mut all = Vec::new();
    for (name, node) in claims {
        let claim = claim(name, "attaches.example.org");
        let mover = seen(&claim.staging_name(), node, &json!({}), &[]);
        pods.movers.insert(mover.name.clone(), mover);
        all.push(claim);
    }
    let consumers = consumers.into_iter().map(|pod| (pod.uid.clone(), pod));
    pods.seen = consumers.collect();
    let group = Group::new("g".into(), "shop".into(), all);
    (group, pods)
}

fn attaching() -> BTreeSet<String> {
    ["attaches.example.org".to_string()].into()
}

fn anchors(group: &Group, pods: &Pods) -> Vec<Anchor> {
    wanted(&config(&[]), &attaching(), group, pods)
}

#[test]
fn an_anchor_is_with_the_movers_of_its_node_and_draws_their_consumer_there() {
    let labels = json!({"app": "web", "topology.kubernetes.io/zone": "b"});
    let consumer = seen("web", "n1", &labels, &["x", "y"]);
    let (group, pods) = staged(&[("x", "n1"), ("y", "n1")], vec![consumer]);
    let [anchor] = anchors(&group, &pods).try_into().ok().unwrap();
    assert!(anchor.holds("x") && anchor.holds("y") && !anchor.holds("z"));
    let pod = serde_json::to_value(&anchor.pod).unwrap();
    assert_eq!(
        pod["metadata"]["name"],
        json!(group.claims[0].anchor_name())
    );
    assert_eq!(pod["metadata"]["annotations"]["pvmigrate.io/claim"], "x\ny");
    let mounted: Vec<_> = (0..2)
        .map(|n| pod["spec"]["volumes"][n]["persistentVolumeClaim"]["claimName"].clone())
        .collect();
    let staging: Vec<_> = group
        .claims
        .iter()
        .map(|claim| json!(claim.staging_name()))
        .collect();
    assert_eq!(mounted, staging);
    assert_eq!(pod["spec"]["tolerations"][0]["key"], "db");
    let security = &pod["spec"]["securityContext"];
    assert_eq!(security["seLinuxOptions"]["level"], "s0:c1");
    assert_eq!(security["runAsNonRoot"], true);
    let affinity = &pod["spec"]["affinity"];
    let nodes = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let field = &nodes["nodeSelectorTerms"][0]["matchFields"][0];
    assert_eq!(field["values"], json!(["n1"]));
    let draws = &affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        draws[0]["podAffinityTerm"]["labelSelector"]["matchLabels"],
        json!({"app": "web"}),
        "not what its node is"
    );
}

#[test]
fn each_node_has_an_anchor_of_its_own_and_several_consumers_are_not_drawn_together() {
    let labels = json!({"app": "web"});
    let one = seen("one", "n1", &labels, &["x"]);
    let other = seen("other", "n2", &labels, &["x", "y"]);
    let (group, pods) = staged(&[("x", "n1"), ("y", "n2")], vec![one, other]);
    let all = anchors(&group, &pods);
    let held: Vec<_> = all
        .iter()
        .map(|anchor| (anchor.node.as_str(), &anchor.claims[..]))
        .collect();
    assert_eq!(
        held,
        [
            ("n1", &["x".to_string()][..]),
            ("n2", &["y".to_string()][..])
        ]
    );
    let affinity = |anchor: &Anchor| {
        let spec = anchor.pod.spec.clone().unwrap();
        spec.affinity.unwrap().pod_affinity
    };
    assert_eq!(affinity(&all[0]), None, "two pods mount x");
    assert!(affinity(&all[1]).is_some(), "one pod mounts y");
}

#[test]
fn there_is_no_anchor_where_none_is_of_use() {
    let consumer = || vec![seen("web", "n1", &json!({"app": "web"}), &["x"])];
    let none = |change: &dyn Fn(&mut Group, &mut Pods)| {
        let (mut group, mut pods) = staged(&[("x", "n1")], consumer());
        assert_eq!(anchors(&group, &pods).len(), 1);
        change(&mut group, &mut pods);
        assert!(anchors(&group, &pods).is_empty());
    };
    none(&|_, pods| pods.seen.clear());
    none(&|_, pods| pods.movers.clear());
    none(&|group, _| group.claims[0] = claim("x", "shares.example.org"));
    none(&|group, _| group.claims[0].record.heading = Heading::Source);
    none(&|group, _| {
        let modes = vec!["ReadWriteOncePod".into()];
        group.claims[0].record.manifest.wishes.access_modes = modes;
    });
}
