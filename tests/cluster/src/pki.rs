//! One authority for everything, made anew for each cluster, and a kubeconfig for each client.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::bed::{API_PORT, write};
use crate::{Bed, NODES};

/// The first address of the service range: the `kubernetes` Service.
pub const SERVICE_ADDRESS: &str = "10.96.0.1";

/// Writes all certificates, keys and kubeconfigs of a cluster.
pub fn create(bed: &Bed) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = named("pvmigrate-testbed", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate = params.self_signed(&key)?;
    write(&path(bed, "ca.crt"), certificate.pem())?;
    let authority = Issuer::new(params, key);

    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        SERVICE_ADDRESS,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(String::from)
    .to_vec();
    names.extend(NODES.iter().map(crate::Node::address));
    let mut server = CertificateParams::new(names)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(bed, "apiserver", &server, &authority)?;

    sign(
        bed,
        "apiserver-kubelet",
        &client("kube-apiserver", Some("system:masters")),
        &authority,
    )?;
    for (user, group) in [
        ("admin", Some("system:masters")),
        ("system:kube-controller-manager", None),
        ("system:kube-scheduler", None),
        ("system:kube-proxy", None),
    ] {
        identity(bed, user, group, &authority)?;
    }
    for node in &NODES {
        identity(
            bed,
            &format!("system:node:{}", node.name),
            Some("system:nodes"),
            &authority,
        )?;
    }

    let accounts = KeyPair::generate()?;
    write(&path(bed, "accounts.key"), accounts.serialize_pem())?;
    write(&path(bed, "accounts.pub"), accounts.public_key_pem())
}

/// A certificate, key or authority by its file name.
pub fn path(bed: &Bed, file: &str) -> PathBuf {
    bed.state.join("pki").join(file)
}

/// The kubeconfig of a user: `system:node:node-a` has `node-a.kubeconfig`.
pub fn kubeconfig(bed: &Bed, user: &str) -> PathBuf {
    bed.state.join(format!("{}.kubeconfig", short(user)))
}

fn identity(bed: &Bed, user: &str, group: Option<&str>, authority: &Authority) -> Result<()> {
    let name = short(user);
    sign(bed, name, &client(user, group), authority)?;
    // JSON is YAML.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {
            "server": format!("https://127.0.0.1:{API_PORT}"),
            "certificate-authority": path(bed, "ca.crt"),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate": path(bed, &format!("{name}.crt")),
            "client-key": path(bed, &format!("{name}.key")),
        }}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": name}}],
        "current-context": "testbed",
    });
    write(&kubeconfig(bed, user), serde_json::to_vec_pretty(&config)?)
}

type Authority = Issuer<'static, KeyPair>;

fn sign(bed: &Bed, name: &str, params: &CertificateParams, authority: &Authority) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    write(&path(bed, &format!("{name}.crt")), certificate.pem())?;
    write(&path(bed, &format!("{name}.key")), key.serialize_pem())
}

fn client(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = named(user, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn named(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params
}

fn short(user: &str) -> &str {
    user.rsplit(':').next().unwrap_or(user)
}

/// For arguments: a path as text.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
