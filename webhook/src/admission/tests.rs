use axum::body::Body;
use axum::http::Request as HttpRequest;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::samples::{DEPLOYMENT_LABELLED, POD_GENERATED_NAME, fenced, release, volume};

/// A webhook that has read a fence of generation 1 over the claim `data`.
fn synced() -> Memory {
    let mut memory = Memory::new(release());
    memory.take(Event::Init);
    memory.take(Event::InitApply(volume(
        "pv-1",
        Some(&fenced("data", &[]).to_json()),
    )));
    memory.take(Event::InitDone);
    memory
}

async fn ask(memory: Memory, method: &str, path: &str, body: impl Into<Body>) -> (u16, String) {
    let shutdown = CancellationToken::new();
    ask_during(shutdown, memory, method, path, body).await
}

async fn ask_during(
    shutdown: CancellationToken,
    memory: Memory,
    method: &str,
    path: &str,
    body: impl Into<Body>,
) -> (u16, String) {
    let (_known, memory) = watch::channel(memory);
    let request = HttpRequest::builder()
        .method(method)
        .uri(path)
        .body(body.into())
        .unwrap();
    let response = router(memory, shutdown).oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), BODY_LIMIT)
        .await
        .unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_denial_has_the_uid_the_code_and_the_sentence() {
    let (code, body) = ask(synced(), "POST", "/fence/1", POD_GENERATED_NAME).await;
    assert_eq!(code, 200);
    assert_eq!(
        json(&body),
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {
                "uid": "a729b3ea-74aa-4a30-bc63-3b8efcd0aa47",
                "allowed": false,
                "status": {
                    "status": "Failure",
                    "code": 403,
                    "reason": "Forbidden",
                    "message": pvmigrate_record::refusal::pod(&fenced("data", &[])),
                },
            },
        })
    );
}

#[tokio::test]
async fn what_passes_has_the_uid_too() {
    let (code, body) = ask(synced(), "POST", "/fence/1", DEPLOYMENT_LABELLED).await;
    let asked = json(DEPLOYMENT_LABELLED)["request"]["uid"].clone();
    assert_eq!(code, 200);
    assert_eq!(json(&body)["response"]["uid"], asked);
    assert_eq!(json(&body)["response"]["allowed"], true);
}

#[tokio::test]
async fn a_webhook_that_is_behind_says_so_instead_of_allowing() {
    let (code, body) = ask(synced(), "POST", "/fence/2", DEPLOYMENT_LABELLED).await;
    assert_eq!(code, 503);
    assert_eq!(
        json(&body)["message"],
        "pvmigrate: the webhook has seen the fence's generation 1, and is asked about 2"
    );
    assert_eq!(json(&body)["kind"], "Status");
}

#[tokio::test]
async fn a_webhook_that_is_not_synced_is_not_ready_and_gives_no_verdict() {
    let memory = || Memory::new(release());
    let (code, body) = ask(memory(), "POST", "/fence/0", DEPLOYMENT_LABELLED).await;
    assert_eq!(code, 503);
    assert_eq!(
        json(&body)["message"],
        "pvmigrate: the webhook has not read the records of release pvmigrate yet"
    );
    assert_eq!(ask(memory(), "GET", "/readyz", "").await.0, 503);
    assert_eq!(ask(memory(), "GET", "/livez", "").await.0, 200);
}

#[tokio::test]
async fn a_webhook_that_shuts_down_still_answers() {
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let still = async |method, path, body| {
        ask_during(shutdown.clone(), synced(), method, path, body)
            .await
            .0
    };
    assert_eq!(still("GET", "/readyz", "").await, 503);
    assert_eq!(still("GET", "/livez", "").await, 200);
    assert_eq!(still("POST", "/fence/1", POD_GENERATED_NAME).await, 200);
    assert_eq!(ask(synced(), "GET", "/readyz", "").await.0, 200);
}

#[tokio::test]
async fn what_is_no_review_is_refused_without_a_verdict() {
    for garbage in [
        "",
        "{}",
        "[]",
        "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\"}",
    ] {
        assert_eq!(
            ask(synced(), "POST", "/fence/1", garbage).await.0,
            400,
            "{garbage}"
        );
    }
}

#[tokio::test]
async fn a_body_may_have_seven_mebibytes_and_no_more() {
    // Insignificant space makes a review of any length.
    let padded =
        |length| POD_GENERATED_NAME.to_string() + &" ".repeat(length - POD_GENERATED_NAME.len());
    let (code, body) = ask(synced(), "POST", "/fence/1", padded(BODY_LIMIT)).await;
    assert_eq!(
        (code, json(&body)["response"]["allowed"].clone()),
        (200, json!(false))
    );
    for length in [BODY_LIMIT + 1, 8 * 1024 * 1024] {
        let code = ask(synced(), "POST", "/fence/1", padded(length)).await.0;
        assert_eq!(code, 413, "{length}");
    }
}

#[tokio::test]
async fn a_review_that_a_rule_cannot_read_is_an_error() {
    let garbled =
        POD_GENERATED_NAME.replacen("\"volumes\": [", "\"volumes\": \"none\", \"v\": [", 1);
    let (code, body) = ask(synced(), "POST", "/fence/1", garbled).await;
    let message = json(&body)["message"].as_str().unwrap().to_string();
    assert_eq!(code, 400);
    assert!(
        message.starts_with("pvmigrate: the review's object cannot be read: invalid type"),
        "{message}"
    );
}

#[tokio::test]
async fn every_other_path_is_not_found() {
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/fence/1"),
        ("POST", "/fence"),
        ("POST", "/fence/"),
        ("POST", "/fence/x"),
        ("POST", "/fence/-1"),
        ("POST", "/fence/1/2"),
        ("POST", "/readyz"),
    ] {
        assert_eq!(
            ask(synced(), method, path, POD_GENERATED_NAME).await.0,
            404,
            "{method} {path}"
        );
    }
}
