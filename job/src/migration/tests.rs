use pvmigrate_record::phase::Phase;
use serde_json::from_value;

use super::*;

fn claim(heading: Heading, phase: Phase, fenced: bool) -> Migration {
    let record = json!({
        "version": 1, "release": {"namespace": "ops", "name": "r"}, "run": "0", "epoch": 1,
        "job": "j", "phase": phase, "heading": heading, "fence": {"on": fenced, "generation": 1},
        "claim": {"namespace": "shop", "name": "data", "uid": "u"},
        "sourceClass": "a", "destinationClass": "b",
        "source": {"name": "pv", "uid": "v", "reclaim_policy": "Delete"},
        "manifest": {}, "group": "g", "freeze": [],
    });
    Migration::new(from_value(record).unwrap(), PersistentVolume::default())
}

fn is_open(claims: &[(Heading, Phase, bool)]) -> bool {
    let claims = claims
        .iter()
        .map(|(heading, phase, on)| claim(*heading, *phase, *on));
    let groups = Group::gather(claims.collect());
    assert_eq!(groups.len(), 1);
    groups[0].is_open()
}

#[test]
fn a_group_is_open_from_the_word_that_takes_a_fence_off_its_destination() {
    for phase in Phase::ALL {
        // Until then the fence is on, or was never raised.
        let wanted = phase > Phase::Rebound;
        let closed = [(Heading::Destination, phase, true)];
        assert_eq!(is_open(&closed), wanted, "{phase:?}, fenced");
        let wanted = phase >= Phase::Rebound;
        let open = [(Heading::Destination, phase, false)];
        assert_eq!(is_open(&open), wanted, "{phase:?}, not fenced");
        // On its source a claim is where it was: whatever runs there runs on what it had.
        for fenced in [true, false] {
            let back = [(Heading::Source, phase, fenced)];
            assert!(!is_open(&back), "{phase:?} on its source, {fenced}");
        }
    }
}

#[test]
fn one_open_claim_opens_its_group() {
    let shut = (Heading::Destination, Phase::Rebound, true);
    let open = (Heading::Destination, Phase::Rebound, false);
    assert!(!is_open(&[shut, shut]));
    assert!(is_open(&[shut, open]));
    assert!(is_open(&[open, shut]));
}
