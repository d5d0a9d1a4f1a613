//! What must hold for an answer, whatever was asked. Used by the fuzzer and by the test that
//! replays its corpus.

// Each user needs one of the two entries.
#![allow(dead_code)]

use std::path::Path;
use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::runtime::watcher::Event;
use pvmigrate_record::record::Release;
use pvmigrate_webhook::admission;
use pvmigrate_webhook::memory::Memory;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A webhook that knows a fence over the claim `data`, and one that has read nothing yet.
static KNOWING: LazyLock<Router> = LazyLock::new(|| router(&[fenced()]));
static UNSYNCED: LazyLock<Router> = LazyLock::new(|| router(&[]));

/// Reviews to start from, and what can be put into them.
static SAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    // The test's package is the webhook, the fuzzer's is a folder in it.
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut folders = folders.map(|folder| folder.join("src/samples"));
    let folder = folders.find(|folder| folder.is_dir()).unwrap();
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    files.into_iter().map(read).collect()
});

const VALUES: [fn() -> Value; 24] = [
    || json!(null),
    || json!(""),
    || json!("data"),
    || json!("data-db-0"),
    || json!("fixtures"),
    || json!("frozen"),
    || json!("web"),
    || json!("pv-1"),
    || json!("pv-2"),
    || json!("pvmigrate-abc-1"),
    || json!("CREATE"),
    || json!("UPDATE"),
    || json!("DELETE"),
    || json!("scale"),
    || json!("status"),
    || json!(true),
    || json!(0),
    || json!(1),
    || json!(-1),
    || json!(1e300),
    || json!(u64::MAX),
    || json!([]),
    || json!({}),
    || json!([{"name": "x", "persistentVolumeClaim": {"claimName": "data"}}]),
];

/// A body as it is.
pub fn body(body: &[u8]) {
    let (code, answer) = ask(&KNOWING, body);
    match code {
        200 => answered(body, &answer),
        400 => assert!(answer["message"].is_string(), "{answer}"),
        code => panic!("{code}: {answer}"),
    }
    let (code, answer) = ask(&UNSYNCED, body);
    assert!(matches!(code, 400 | 503), "{code}: {answer}");
}

/// A review to start from, and then pairs of a place in it and what to put there.
pub fn edits(edits: &[u8]) {
    let Some((first, edits)) = edits.split_first() else {
        return;
    };
    let mut review = SAMPLES[usize::from(*first) % SAMPLES.len()].clone();
    for edit in edits.chunks_exact(3) {
        let places = places(&review["request"]);
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % places.len();
        let place = review["request"].pointer_mut(&places[at]).unwrap();
        match usize::from(edit[2]) {
            value if value < VALUES.len() => *place = VALUES[value](),
            // A piece of another review in its place.
            other => {
                let other = &SAMPLES[other % SAMPLES.len()]["request"];
                *place = other.pointer(&places[at]).cloned().unwrap_or_default();
            }
        }
    }
    body(review.to_string().as_bytes());
}

/// An answer is about the question, and what is known to be refused is not allowed. The question
/// is read here in another way than the webhook reads it.
fn answered(body: &[u8], answer: &Value) {
    let review: Value = serde_json::from_slice(body).unwrap();
    let (request, response) = (&review["request"], &answer["response"]);
    assert_eq!(response["uid"], request["uid"]);
    match response["allowed"].as_bool() {
        Some(false) => {
            assert_eq!(response["status"]["code"], 403, "{answer}");
            let sentence = response["status"]["message"].as_str().unwrap();
            assert!(sentence.starts_with("pvmigrate "), "{answer}");
        }
        Some(true) => assert!(!is_forbidden(request), "allowed: {request}"),
        None => panic!("no verdict: {answer}"),
    }
}

/// Some of what the fence refuses, without its rules.
fn is_forbidden(request: &Value) -> bool {
    let text = |path: &str| {
        request
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let resource = (text("/resource/group"), text("/resource/resource"));
    let of = (resource.0, resource.1, text("/operation"));
    // With a status come labels and annotations.
    let subresource = text("/subResource");
    if !subresource.is_empty() && (subresource, of.2) != ("status", "UPDATE") {
        return false;
    }
    let here = text("/namespace") == "fixtures";
    let named = |name: &str| {
        ["/name", "/object/metadata/name", "/oldObject/metadata/name"]
            .map(text)
            .contains(&name)
    };
    let changes = |mark: &str| {
        let mark = |object| request.pointer(&format!("/{object}/metadata/{mark}"));
        mark("object") != mark("oldObject")
    };
    match of {
        ("", "pods", "CREATE") => here && mounts(&request["object"]["spec"]),
        ("apps", "deployments" | "daemonsets", "CREATE") => {
            here && mounts(&request["object"]["spec"]["template"]["spec"])
        }
        ("", "persistentvolumeclaims", "CREATE" | "DELETE") => here && named("data"),
        ("", "persistentvolumeclaims", "UPDATE") => {
            here && named("data") && changes("annotations/pvmigrate.io~1epoch")
        }
        ("", "persistentvolumes", "UPDATE") => {
            (named("pv-1") || named("pv-2")) && changes("labels/pvmigrate.io~1run")
        }
        ("", "persistentvolumes", "DELETE") => named("pv-1") || named("pv-2"),
        ("", "namespaces", "DELETE") => named("fixtures"),
        ("apps", "deployments" | "statefulsets", "DELETE") => here && named("frozen"),
        ("snapshot.storage.k8s.io", "volumesnapshots", "CREATE") => {
            here && text("/object/spec/source/persistentVolumeClaimName") == "data"
        }
        _ => false,
    }
}

fn mounts(spec: &Value) -> bool {
    let volumes = spec["volumes"].as_array();
    volumes.is_some_and(|volumes| {
        let mut volumes = volumes.iter();
        volumes.any(|volume| volume["persistentVolumeClaim"]["claimName"] == "data")
    })
}

fn ask(router: &Router, body: &[u8]) -> (u16, Value) {
    let request = Request::post("/fence/1")
        .body(Body::from(body.to_vec()))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let response = router.clone().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (code, serde_json::from_slice(&body).unwrap())
    })
}

fn router(volumes: &[PersistentVolume]) -> Router {
    let release = Release {
        namespace: "ops".into(),
        name: "pvmigrate".into(),
    };
    let mut memory = Memory::new(release);
    memory.take(Event::Init);
    for volume in volumes {
        memory.take(Event::InitApply(volume.clone()));
        memory.take(Event::InitDone);
    }
    let (known, memory) = watch::channel(memory);
    // Nobody tells it anything any more.
    std::mem::forget(known);
    admission::router(memory, CancellationToken::new())
}

fn fenced() -> PersistentVolume {
    let workloads = [
        ("apps/v1", "Deployment", "scale"),
        ("apps/v1", "StatefulSet", "scale"),
        ("batch/v1", "CronJob", "suspend"),
        ("batch/v1", "Job", "suspend"),
        ("example.org/v1", "Widget", "scale"),
        ("v1", "Pod", "recreate"),
    ];
    let freeze = workloads.map(|(version, kind, method)| {
        let resource = format!("{}s", kind.to_lowercase());
        json!({"method": method, "workload": {"apiVersion": version, "kind": kind, "resource": resource, "namespace": "fixtures", "name": "frozen", "uid": "w"}})
    });
    let record = json!({
        "version": 1,
        "release": {"namespace": "ops", "name": "pvmigrate"},
        "run": "abc",
        "epoch": 1,
        "job": "pvmigrate-x",
        "phase": "Frozen",
        "fence": {"on": true, "generation": 1},
        "claim": {"namespace": "fixtures", "name": "data", "uid": "1"},
        "sourceClass": "a",
        "destinationClass": "fixtures",
        "source": {"name": "pv-1", "uid": "2", "reclaim_policy": "Delete"},
        "destination": {"name": "pv-2", "uid": "3", "reclaim_policy": "Delete"},
        "manifest": {},
        "group": "g",
        "freeze": freeze,
    });
    serde_json::from_value(json!({"metadata": {
        "name": "pv-1",
        "labels": {"pvmigrate.io/run": "abc"},
        "annotations": {"pvmigrate.io/record": record.to_string()},
    }}))
    .unwrap()
}

/// The JSON pointers of all values in a value.
fn places(value: &Value) -> Vec<String> {
    let mut places = vec![String::new()];
    let mut next = 0;
    while let Some(place) = places.get(next).cloned() {
        next += 1;
        match value.pointer(&place) {
            Some(Value::Object(fields)) => places.extend(
                fields
                    .keys()
                    .map(|key| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))),
            ),
            Some(Value::Array(items)) => {
                places.extend((0..items.len()).map(|item| format!("{place}/{item}")));
            }
            _ => {}
        }
    }
    places
}
