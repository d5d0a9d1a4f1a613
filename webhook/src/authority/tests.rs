use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LIFE: Duration = DAY.saturating_mul(3650);

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn authority() -> Authority {
    Authority::create("ca", LIFE, now()).unwrap()
}

#[test]
fn an_authority_survives_its_secret() {
    let made = authority();
    let read = Authority::parse(&made.certificate, made.key.clone()).unwrap();
    assert_eq!(read, made);
    assert_eq!((read.made, read.expires), (now(), now() + LIFE));
    let in_windows_lines = made.certificate.replace('\n', "\r\n");
    let read = Authority::parse(&in_windows_lines, made.key.clone()).unwrap();
    assert_eq!(read.expires, made.expires);
}

#[test]
fn a_part_of_a_second_is_rounded_up() {
    let late = now() + Duration::from_millis(1);
    let made = Authority::create("ca", LIFE, late).unwrap();
    assert_eq!(made.made, now() + Duration::from_secs(1));
}

#[test]
fn it_is_found_among_several_by_its_key() {
    let (one, two) = (authority(), authority());
    let both = format!("# ours\n{}\n{}", one.certificate, two.certificate);
    for wanted in [&one, &two] {
        let found = Authority::parse(&both, wanted.key.clone()).unwrap();
        assert_eq!(found, *wanted);
    }
}

#[test]
fn what_is_no_authority_is_named() {
    let made = authority();
    let parse = |certificate: &str, key: &str| {
        let error = Authority::parse(certificate, key.into()).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        parse("nonsense", &made.key),
        "the CA's certificate is not a PEM certificate"
    );
    assert_eq!(
        parse(&made.certificate, "nonsense"),
        "the CA's key cannot be read"
    );
    assert_eq!(
        parse(&made.certificate, &authority().key),
        "the CA's key is not the key of its certificate"
    );
    let error = made.issue(&[], DAY, now() + LIFE).err().unwrap();
    assert_eq!(error.to_string(), "the CA expired at 2035-12-30T00:00:00Z");
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
    let leaf = authority()
        .issue(&["a.b.svc".into()], DAY * 30, now())
        .unwrap();
    assert_eq!(leaf.renew_at, now() + DAY * 20);
}

#[test]
fn no_certificate_outlives_its_authority() {
    let authority = authority();
    let late = now() + LIFE - DAY * 3;
    let leaf = authority
        .issue(&["a.b.svc".into()], DAY * 30, late)
        .unwrap();
    assert_eq!(leaf.renew_at, late + DAY * 2);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.certificate).unwrap();
    assert_eq!(
        parsed.validity().not_after.timestamp(),
        authority.expires.as_second()
    );
}
