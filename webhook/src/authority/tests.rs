use jiff::ToSpan;

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn authority() -> Authority {
    Authority::create("ca", now()).unwrap()
}

#[test]
fn an_authority_survives_its_secret() {
    let made = authority();
    let read = Authority::parse(made.certificate.clone(), made.key.clone(), now()).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.expires, now() + DAY * 3650);
}

#[test]
fn what_is_no_authority_is_named() {
    let made = authority();
    let parse = |certificate: &str, key: &str, now| {
        let error = Authority::parse(certificate.into(), key.into(), now).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        parse("nonsense", &made.key, now()),
        "the CA's certificate is not a PEM certificate"
    );
    assert_eq!(
        parse(&made.certificate, "nonsense", now()),
        "the CA's key cannot be read"
    );
    assert_eq!(
        parse(&made.certificate, &authority().key, now()),
        "the CA's key is not the key of its certificate"
    );
    let later = now() + 87_600.hours();
    assert_eq!(
        parse(&made.certificate, &made.key, later),
        "the CA expired at 2035-12-30T00:00:00Z"
    );
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
    let leaf = authority().issue(&["a.b.svc".into()], now()).unwrap();
    assert_eq!(leaf.renew_at, now() + DAY * 20);
}

#[test]
fn no_certificate_outlives_its_authority() {
    let authority = authority();
    let late = now() + DAY * 3650 - DAY * 3;
    let leaf = authority.issue(&["a.b.svc".into()], late).unwrap();
    assert_eq!(leaf.renew_at, late + DAY * 2);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.certificate).unwrap();
    assert_eq!(
        parsed.validity().not_after.timestamp(),
        authority.expires.as_second()
    );
    assert!(matches!(
        authority.issue(&[], now() + DAY * 3650),
        Err(Error::Expired(_))
    ));
}
