use jiff::SignedDuration;

use super::*;

const LIVES: Lives = Lives {
    authority: Duration::from_secs(3000),
    leaf: Duration::from_secs(300),
    settle: Duration::from_secs(100),
};

fn at(second: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

fn made(second: i64) -> Authority {
    Authority::create("ca", LIVES.authority, at(second)).unwrap()
}

#[test]
fn a_whole_rotation_by_age_second_by_second() {
    let (first, second) = (made(0), made(2000));
    let alone = Ring::alone(first.clone());
    let both = alone.begun(second.clone());
    let table = [
        (&alone, 0, None, &first),
        (&alone, 1999, None, &first),
        (&alone, 2000, Some(Change::Begin), &first),
        // Nobody could write: it is served to its end, and then replaced.
        (&alone, 2999, Some(Change::Begin), &first),
        (&alone, 3000, Some(Change::Replace), &first),
        (&both, 2000, None, &first),
        (&both, 2099, None, &first),
        (&both, 2100, None, &second),
        (&both, 2199, None, &second),
        (&both, 2200, Some(Change::Finish), &second),
        (&both, 9999, Some(Change::Finish), &second),
    ];
    for (ring, second, change, issuer) in table {
        assert_eq!(ring.change(&LIVES, at(second)), change, "at {second} s");
        assert_eq!(ring.issuer(&LIVES, at(second)), issuer, "at {second} s");
    }
    let done = both.finished();
    assert_eq!(done, Ring::alone(second.clone()));
    assert_eq!(done.change(&LIVES, at(2200)), None);
    assert_eq!(
        done.renew_at(),
        at(4000),
        "two thirds of the life of its own"
    );
}

#[test]
fn what_is_published_has_the_issuer_at_every_moment_and_both_while_it_changes() {
    let (first, second) = (made(0), made(2000));
    let alone = Ring::alone(first.clone());
    let both = alone.begun(second.clone());
    assert_eq!(alone.certificates(), first.certificate);
    assert_eq!(
        both.certificates(),
        first.certificate.clone() + &second.certificate
    );
    assert_eq!(both.finished().certificates(), second.certificate);
    for part in [&first, &second] {
        let read = Authority::parse(&both.certificates(), part.key.clone()).unwrap();
        assert_eq!(read, *part, "each is found by its key");
    }
}

#[test]
fn an_expired_ca_gives_way_to_the_next_at_once() {
    let (first, second) = (made(0), made(2990));
    let both = Ring::alone(first).begun(second.clone());
    assert_eq!(*both.issuer(&LIVES, at(3000)), second);
    assert_eq!(both.change(&LIVES, at(3000)), None);
}

#[test]
fn a_rotation_that_was_asked_for_is_begun_once() {
    let ask = |ring: &Ring, text: &str| Ring {
        asked: Some(text.into()),
        ..ring.clone()
    };
    let asked = ask(&Ring::alone(made(0)), "monday");
    assert_eq!(asked.change(&LIVES, at(1)), Some(Change::Begin));
    let both = asked.begun(made(1));
    assert_eq!(both.change(&LIVES, at(2)), None);
    // Asked again in the middle of it: another one follows.
    let again = ask(&both, "tuesday").finished();
    assert_eq!(both.finished().change(&LIVES, at(300)), None);
    assert_eq!(again.change(&LIVES, at(300)), Some(Change::Begin));
    assert_eq!(again.begun(made(300)).obeyed.as_deref(), Some("tuesday"));
}

#[test]
fn the_secret_is_looked_at_often_enough() {
    assert_eq!(LIVES.look_every(), Duration::from_secs(10));
    let days = Lives {
        leaf: Duration::from_secs(30 * 86400),
        settle: Duration::from_secs(600),
        ..LIVES
    };
    assert_eq!(days.look_every(), Duration::from_secs(30));
}
