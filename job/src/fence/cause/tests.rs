//! What the API server says here, a Kubernetes 1.36 has said to requests that met just that.

use super::super::objects::tests::setting;
use super::*;

const REFUSED: &str = "Internal error occurred: failed calling webhook \"pods.fence.pvmigrate.io\": failed to call webhook: Post \"https://pvmigrate-webhook.ops.svc:443/fence/1?timeout=5s\": dial tcp 10.96.58.41:443: connect: connection refused";
const UNKNOWN_CA: &str = "Internal error occurred: failed calling webhook \"pods.fence.pvmigrate.io\": failed to call webhook: Post \"https://pvmigrate-webhook.ops.svc:443/fence/1?timeout=5s\": tls: failed to verify certificate: x509: certificate signed by unknown authority";
const POLICY: &str = "pods \"pvmigrate-28571450dc-a9cef1c5f59e-probe\" is forbidden: ValidatingAdmissionPolicy 'strict' with binding 'strict' denied request: no probes";

const NO_SERVICE: &str = "Internal error occurred: failed calling webhook \"pods.fence.pvmigrate.io\": failed to call webhook: Post \"https://pvmigrate-webhook.ops.svc:443/fence/4?timeout=5s\": service \"pvmigrate-webhook\" not found";
const STRICT_DEAD: &str = "Internal error occurred: failed calling webhook \"strict.example.org\": failed to call webhook: Post \"https://strict.example.svc:443/deny?timeout=5s\": dial tcp 127.1.3.5:443: connect: connection refused";

fn say(said: Option<&str>, behind: &Behind) -> String {
    cause(&setting(), "pvmigrate-webhook-ca", "webhook", said, behind)
}

fn pods(pods: &[(&str, Option<&str>)]) -> Behind {
    let pods = pods.iter();
    Behind::Pods(
        pods.map(|(name, why)| ((*name).into(), why.map(Into::into)))
            .collect(),
    )
}

#[test]
fn a_webhook_that_is_not_there_is_told_by_what_is_behind_its_service() {
    for (said, behind, begin, end) in [
        (
            NO_SERVICE,
            Behind::NoService,
            "Service ops/pvmigrate-webhook does not exist: ",
            "; install the chart again",
        ),
        (
            REFUSED,
            pods(&[]),
            "no pod is behind Service ops/pvmigrate-webhook: ",
            "; see kubectl -n ops get deployment pvmigrate-webhook",
        ),
        (
            REFUSED,
            pods(&[
                ("w-1", Some("pod w-1 waits, ImagePullBackOff")),
                ("w-2", Some("pod w-2 is not scheduled: no nodes")),
            ]),
            "no pod behind Service ops/pvmigrate-webhook is Ready (pod w-1 waits, ImagePullBackOff; pod w-2 is not scheduled: no nodes): ",
            "; see kubectl -n ops get pods",
        ),
        (
            REFUSED,
            pods(&[("w-1", None), ("w-2", Some("pod w-2 is Pending"))]),
            "the API server cannot reach the webhook, though w-1 is Ready: ",
            "; see that the port of Service ops/pvmigrate-webhook is the pods' own, and that no NetworkPolicy or firewall stands between",
        ),
    ] {
        assert_eq!(say(Some(said), &behind), format!("{begin}{said}{end}"));
    }
}

#[test]
fn a_certificate_of_another_ca_is_told_whatever_is_behind_the_service() {
    assert_eq!(
        say(Some(UNKNOWN_CA), &pods(&[("w-1", None)])),
        format!(
            "the webhook's certificate is not one of the CA in Secret ops/pvmigrate-webhook-ca: {UNKNOWN_CA}; delete that Secret, and the webhook's pods make it again: kubectl -n ops delete secret pvmigrate-webhook-ca"
        )
    );
}

#[test]
fn others_in_the_way_are_named_and_quoted() {
    let fine = pods(&[("w-1", None)]);
    let spare = "make it spare pods with the label pvmigrate.io/role=probe";
    assert_eq!(
        say(Some(POLICY), &fine),
        format!(
            "policy strict stands before it and refuses the pod that is tried: {POLICY}; {spare}"
        )
    );
    let denied = "admission webhook \"strict.example.org\" denied the request: no";
    assert_eq!(
        say(Some(denied), &fine),
        format!(
            "webhook strict.example.org stands before it and refuses the pod that is tried: {denied}; {spare}"
        )
    );
    assert_eq!(
        say(Some(STRICT_DEAD), &pods(&[])),
        format!(
            "webhook strict.example.org does not answer, so that no pod can be made there: {STRICT_DEAD}; repair it, or find its configuration and delete it: kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
        )
    );
}

#[test]
fn a_webhook_that_is_behind_is_no_failure_of_the_network() {
    let said = "Internal error occurred: failed calling webhook \"pods.fence.pvmigrate.io\": failed to call webhook: pvmigrate: the webhook has seen the fence's generation 3, and is asked about 4";
    assert_eq!(
        say(Some(said), &pods(&[("w-1", None)])),
        format!(
            "the webhook does not know all that is fenced yet: {said}; see kubectl -n ops logs deployment/pvmigrate-webhook"
        )
    );
}

#[test]
fn a_fence_that_lets_pass_and_one_that_is_not_reached_are_told_apart() {
    let fine = pods(&[("w-1", None)]);
    assert_eq!(
        say(None, &fine),
        "the webhook lets a pod that mounts it pass"
    );
    let quota = "pods \"pvmigrate-28571450dc-a9cef1c5f59e-probe\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5";
    assert_eq!(
        say(Some(quota), &fine),
        format!("the API server does not get as far as the webhook: {quota}")
    );
    let own = "pods \"pvmigrate-28571450dc-a9cef1c5f59e-probe\" is forbidden: ValidatingAdmissionPolicy 'pvmigrate.ops.pvmigrate' with binding 'pvmigrate.ops.pvmigrate' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(
        say(Some(own), &fine),
        format!("the fence's own policy does not work: {own}")
    );
}
