//! KEDA's operator, for the test that lets it steer what is migrated: built, defined and started
//! for that test only. What would ask it for metrics is not here, so autoscalers see none: it
//! starts and stops workloads, between 0 replicas and one.

use std::fs;

use anyhow::{Context, Result};

use crate::control_plane::kubectl;
use crate::definitions::Definitions;
use crate::{Bed, pki, process, programs};

const PROGRAM: &str = "keda-operator";
const DEFINITIONS: Definitions = Definitions {
    module: "keda",
    source: "github.com/kedacore/keda/v2",
    files: &[
        "bases/eventing.keda.sh_cloudeventsources.yaml",
        "bases/eventing.keda.sh_clustercloudeventsources.yaml",
        "bases/keda.sh_clustertriggerauthentications.yaml",
        "bases/keda.sh_scaledjobs.yaml",
        "bases/keda.sh_scaledobjects.yaml",
        "bases/keda.sh_triggerauthentications.yaml",
    ],
};

/// Builds it where it is missing, which takes minutes, and starts it for one namespace.
pub fn start(bed: &Bed, namespace: &str) -> Result<()> {
    programs::ensure_keda(bed)?;
    let definitions = DEFINITIONS.ensure(bed)?.display().to_string();
    kubectl(bed, &["apply", "--server-side", "--filename", &definitions])
        .context("defining what KEDA's objects are")?;
    let certificates = bed.state.join("keda");
    fs::create_dir_all(&certificates)
        .with_context(|| format!("creating {}", certificates.display()))?;
    // Nobody calls it, but without a certificate it ends.
    for (file, of) in [
        ("ca.crt", "ca.crt"),
        ("tls.crt", "apiserver.crt"),
        ("tls.key", "apiserver.key"),
    ] {
        let copied = fs::copy(pki::path(bed, of), certificates.join(file));
        copied.with_context(|| format!("copying {of}"))?;
    }
    process::stop(bed, PROGRAM)?;
    let arguments = [
        format!("KUBECONFIG={}", bed.kubeconfig().display()),
        format!("WATCH_NAMESPACE={namespace}"),
        format!("POD_NAMESPACE={namespace}"),
        format!("KEDA_CLUSTER_OBJECT_NAMESPACE={namespace}"),
        bed.program(PROGRAM).display().to_string(),
        format!("--cert-dir={}", certificates.display()),
        "--enable-prometheus-metrics=false".into(),
        "--health-probe-bind-address=0".into(),
        "--metrics-service-bind-address=127.0.0.1:0".into(),
    ];
    process::start(bed, PROGRAM, "/usr/bin/env".as_ref(), &arguments)
}

/// Fails with the end of its log where it does not run.
pub fn ensure_alive(bed: &Bed) -> Result<()> {
    process::ensure_alive(bed, PROGRAM)
}

/// Ends it. Its objects stay, to be looked at.
pub fn stop(bed: &Bed) -> Result<()> {
    process::stop(bed, PROGRAM)
}

/// Removes its definitions, and with them all objects of its kinds.
pub fn forget(bed: &Bed) -> Result<()> {
    let definitions = DEFINITIONS.ensure(bed)?.display().to_string();
    kubectl(
        bed,
        &[
            "delete",
            "--wait=false",
            "--ignore-not-found",
            "--filename",
            &definitions,
        ],
    )
    .map(drop)
}
