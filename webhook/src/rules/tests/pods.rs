use super::*;

#[test]
fn a_pod_that_mounts_a_fenced_claim_is_refused() {
    let record = fenced("data", &[]);
    assert_eq!(
        about("pod-generated-name", &record),
        migrating("no pod may mount it")
    );
}

#[test]
fn a_pod_is_meant_by_the_claims_that_it_mounts() {
    for (review, claim, refused) in [
        ("pod-generated-name", "data", true),
        ("pod-generated-name", "dat", false),
        ("pod-generated-name", "config", false),
        // The claim of an ephemeral volume is named after its pod.
        ("pod-ephemeral-volume", "scratch-tmp", true),
        ("pod-ephemeral-volume", "scratch", false),
        ("pod-ephemeral-volume", "tmp", false),
    ] {
        let verdict = about(review, &fenced(claim, &[]));
        assert_eq!(
            verdict.is_some(),
            refused,
            "{review} with {claim}: {verdict:?}"
        );
    }
}

#[test]
fn the_staging_claim_is_for_the_mover_alone() {
    let record = fenced("other", &[]);
    let thief = changed("pod-generated-name", |request| {
        for volume in request["object"]["spec"]["volumes"].as_array_mut().unwrap() {
            if volume.get("persistentVolumeClaim").is_some() {
                volume["persistentVolumeClaim"]["claimName"] = json!("pvmigrate-abc-1");
            }
        }
    });
    let sentence = verdict(&thief, &record).unwrap();
    assert!(
        sentence.contains(
            ": claim fixtures/pvmigrate-abc-1 holds its copy and is for pvmigrate alone until "
        ),
        "{sentence}"
    );
}

#[test]
fn no_pod_takes_the_name_of_one_that_will_be_made_again() {
    let name = request("pod-ephemeral-volume").name;
    let pod = format!("Pod/{name}");
    assert_eq!(
        about("pod-ephemeral-volume", &fenced("data", &[&pod])),
        stops(
            &format!("Pod fixtures/{name}"),
            "no other Pod may take its name until that is done"
        )
    );
}

#[test]
fn a_probe_is_refused_like_any_other_pod() {
    let probe = changed("pod-generated-name", |request| {
        request["object"]["metadata"]["labels"] = json!({"pvmigrate.io/probe": "webhook"});
        request["dryRun"] = json!(true);
        request["userInfo"]["username"] = json!("system:serviceaccount:ops:pvmigrate");
    });
    assert!(verdict(&probe, &fenced("data", &[])).is_some());
}
