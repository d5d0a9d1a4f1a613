use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Bed;
use crate::bed::{API_PORT, ETCD_PEER_PORT, ETCD_PORT, NODES, write};
use crate::command::{retry, run};
use crate::pki::{SERVICE_ADDRESS, kubeconfig, path, text};
use crate::process::start;

const SERVICE_RANGE: &str = "10.96.0.0/16";

/// Starts etcd and the API server, and does not wait for them.
pub fn start_api(bed: &Bed) -> Result<()> {
    let client_url = format!("http://127.0.0.1:{ETCD_PORT}");
    let peer_url = format!("http://127.0.0.1:{ETCD_PEER_PORT}");
    start(
        bed,
        "etcd",
        "/usr/bin/etcd".as_ref(),
        &[
            format!("--data-dir={}", bed.state.join("etcd").display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
            // The data need not outlive the machine.
            "--unsafe-no-fsync".into(),
        ],
    )?;
    let pki = |file: &str| text(&path(bed, file));
    let audit = bed.state.join("audit.json");
    write(&audit, serde_json::to_vec_pretty(&audited())?)?;
    start(
        bed,
        "kube-apiserver",
        &bed.program("kube-apiserver"),
        &[
            format!("--etcd-servers={client_url}"),
            format!("--secure-port={API_PORT}"),
            format!("--advertise-address={}", NODES[0].address()),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!(
                "--kubelet-client-certificate={}",
                pki("apiserver-kubelet.crt")
            ),
            format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", pki("accounts.pub")),
            format!("--service-account-signing-key-file={}", pki("accounts.key")),
            format!("--audit-policy-file={}", audit.display()),
            format!("--audit-log-path={}", bed.audit_log().display()),
            "--audit-log-maxsize=200".into(),
            "--audit-log-maxbackup=1".into(),
        ],
    )
}

/// What the audit log has: the requests of what runs in pods, so that tests can count them. Not
/// those of Kubernetes' own controllers, which are many.
fn audited() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    })
}

/// Waits until the API server says that it is ready.
pub fn await_api(bed: &Bed) -> Result<()> {
    retry(
        "the API server to be ready",
        Duration::from_secs(60),
        || kubectl(bed, &["get", "--raw=/readyz"]),
    )
    .map(drop)
    .map_err(|error| error.context(format!("see {}", bed.log("kube-apiserver").display())))
}

/// Starts what works through the API server.
pub fn start_rest(bed: &Bed) -> Result<()> {
    let pki = |file: &str| text(&path(bed, file));
    let config = |user: &str| format!("--kubeconfig={}", kubeconfig(bed, user).display());
    start(
        bed,
        "kube-controller-manager",
        &bed.program("kube-controller-manager"),
        &[
            config("kube-controller-manager"),
            "--leader-elect=false".into(),
            "--use-service-account-credentials".into(),
            "--secure-port=0".into(),
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
            format!("--root-ca-file={}", pki("ca.crt")),
            format!("--service-account-private-key-file={}", pki("accounts.key")),
            // A test that loses a node must not wait the usual 50 s until it is seen.
            "--node-monitor-period=2s".into(),
            "--node-monitor-grace-period=16s".into(),
        ],
    )?;
    start(
        bed,
        "kube-scheduler",
        &bed.program("kube-scheduler"),
        &[
            config("kube-scheduler"),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
        ],
    )?;
    let settings = serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig(bed, "kube-proxy")},
        "mode": "iptables",
        "conntrack": {"maxPerCore": 0},
        // Pods of one bridge would answer each other past the rules.
        "iptables": {"masqueradeAll": true, "minSyncPeriod": "0s"},
        "hostnameOverride": NODES[0].name,
        "healthzBindAddress": "127.0.0.1:11256",
        "metricsBindAddress": "127.0.0.1:11249",
    });
    let file = bed.state.join("kube-proxy.json");
    write(&file, serde_json::to_vec_pretty(&settings)?)?;
    start(
        bed,
        "kube-proxy",
        &bed.program("kube-proxy"),
        &[format!("--config={}", file.display())],
    )
}

/// Waits until a Service's address leads somewhere from this host, as the API server's calls of
/// webhooks need it.
pub fn await_services() -> Result<()> {
    retry(
        "kube-proxy to serve the address of the kubernetes Service",
        Duration::from_secs(30),
        || {
            let address = (SERVICE_ADDRESS, 443)
                .to_socket_addrs()?
                .next()
                .context("no address")?;
            TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
            Ok(())
        },
    )
}

/// Runs kubectl as the administrator.
pub fn kubectl(bed: &Bed, arguments: &[&str]) -> Result<String> {
    run(Command::new(bed.program("kubectl"))
        .arg("--kubeconfig")
        .arg(bed.kubeconfig())
        .args(arguments))
}
