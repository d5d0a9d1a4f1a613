use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, RootCertStore};

use super::*;

mod rotation;

const LIVES: Lives = Lives {
    authority: Duration::from_secs(3600),
    leaf: Duration::from_secs(900),
    settle: Duration::from_secs(600),
};

fn verify(authority: &Authority, current: &Current, name: &str) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap())?;
    let provider = Arc::new(ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap()
        .verify_server_cert(
            &current.key.cert[0],
            &[],
            &ServerName::try_from(name.to_string()).unwrap(),
            &[],
            UnixTime::now(),
        )?;
    Ok(())
}

#[test]
fn a_client_that_knows_the_ca_accepts_the_certificate_for_the_service_only() {
    let names = [
        "hook.ops.svc".to_string(),
        "hook.ops.svc.cluster.local".into(),
    ];
    let now = Timestamp::now();
    let authority = Authority::create("ca", LIVES.authority, now).unwrap();
    let current = Current::issue(&Ring::alone(authority.clone()), &LIVES, &names, now).unwrap();
    for name in &names {
        verify(&authority, &current, name).unwrap();
    }
    assert!(matches!(
        verify(&authority, &current, "other.ops.svc"),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForNameContext { .. }
        ))
    ));
    let other = Authority::create("ca", LIVES.authority, now).unwrap();
    assert!(verify(&other, &current, &names[0]).is_err());
}

#[test]
fn the_longest_names_that_kubernetes_allows_fit() {
    let names = [format!(
        "{}.{}.svc.cluster.local",
        "s".repeat(63),
        "n".repeat(63)
    )];
    let now = Timestamp::now();
    let authority = Authority::create(&"c".repeat(63), LIVES.authority, now).unwrap();
    let current = Current::issue(&Ring::alone(authority.clone()), &LIVES, &names, now).unwrap();
    verify(&authority, &current, &names[0]).unwrap();
}

#[test]
fn a_certificate_is_due_by_its_age_and_by_its_issuer() {
    let now = Timestamp::now();
    let made = |at| Authority::create("ca", LIVES.authority, at).unwrap();
    let alone = Ring::alone(made(now));
    let current = Current::issue(&alone, &LIVES, &["a".into()], now).unwrap();
    let due = |ring, seconds| {
        let later = now + Duration::from_secs(seconds);
        current.is_due(ring, &LIVES, later)
    };
    assert!(!due(&alone, 599));
    assert!(due(&alone, 600), "two thirds of its life");
    let both = alone.begun(made(now - Duration::from_secs(300)));
    assert!(!due(&both, 200));
    assert!(due(&both, 301), "the next CA has settled");
}
