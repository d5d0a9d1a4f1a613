//! A claim that somebody resizes while its migration is under way. Pure.

use pvmigrate_record::record::ClaimManifest;

use super::size;
use crate::quantity::bytes;

/// Whether a claim asks for more than it has. Without a word about what it has, nothing is known.
pub fn is_under_way(manifest: &ClaimManifest) -> bool {
    let has = bytes(&manifest.capacity).filter(|has| *has > 0);
    has.is_some_and(|has| Some(has) < bytes(&manifest.storage))
}

/// Whether another size was asked for, or came, since the earlier manifest.
pub fn has_changed(earlier: &ClaimManifest, now: &ClaimManifest) -> bool {
    let sizes = |manifest: &ClaimManifest| (bytes(&manifest.storage), bytes(&manifest.capacity));
    sizes(earlier) != sizes(now)
}

/// Why a claim that was resized cannot take over a destination of this capacity.
pub fn refusal(claim: &str, now: &ClaimManifest, destination: &str) -> Option<String> {
    if is_under_way(now) {
        return Some(format!(
            "claim {claim} is being resized (it has {} and asks for {}): wait until that has ended, and set retryFailed; nothing was stopped",
            now.capacity, now.storage
        ));
    }
    (bytes(destination) < bytes(size(now))).then(|| {
        format!(
            "claim {claim} was resized to {} after its new volume was made with {destination}: set retryFailed to try it again with its new size; nothing was stopped",
            size(now)
        )
    })
}

#[cfg(test)]
mod tests {
    use pvmigrate_record::phase::Heading;
    use pvmigrate_record::record::Wishes;

    use super::*;
    use crate::claim::requested;

    fn manifest(storage: &str, capacity: &str) -> ClaimManifest {
        ClaimManifest {
            storage: storage.into(),
            capacity: capacity.into(),
            ..ClaimManifest::default()
        }
    }

    #[test]
    fn a_claim_that_has_outgrown_its_destination_is_refused_by_name() {
        let resized = Some(
            "claim shop/data was resized to 20Gi after its new volume was made with 10Gi: set retryFailed to try it again with its new size; nothing was stopped",
        );
        let under_way = Some(
            "claim shop/data is being resized (it has 10Gi and asks for 20Gi): wait until that has ended, and set retryFailed; nothing was stopped",
        );
        for (storage, capacity, destination, why) in [
            ("10Gi", "10Gi", "10Gi", None),
            ("20Gi", "20Gi", "10Gi", resized),
            ("20Gi", "20Gi", "20480Mi", None),
            ("20Gi", "10Gi", "10Gi", under_way),
            ("20Gi", "10Gi", "20Gi", under_way),
            // What the claim says of itself may be missing.
            ("10Gi", "0", "10Gi", None),
        ] {
            let now = manifest(storage, capacity);
            let said = refusal("shop/data", &now, destination);
            assert_eq!(said.as_deref(), why, "{storage} {capacity} {destination}");
        }
        let wished = ClaimManifest {
            wishes: Wishes {
                storage: Some("5Gi".into()),
                ..Wishes::default()
            },
            ..manifest("20Gi", "20Gi")
        };
        assert_eq!(refusal("shop/data", &wished, "5Gi"), None);
    }

    #[test]
    fn sizes_are_compared_by_what_they_stand_for() {
        let before = manifest("1Gi", "1Gi");
        assert!(!has_changed(&before, &manifest("1024Mi", "1Gi")));
        assert!(has_changed(&before, &manifest("2Gi", "1Gi")));
        assert!(has_changed(&before, &manifest("1Gi", "2Gi")));
    }

    #[test]
    fn on_its_source_a_claim_asks_for_no_more_than_that_has() {
        let resizing = manifest("20Gi", "10Gi");
        assert_eq!(requested(&resizing, Heading::Source), "10Gi");
        assert_eq!(requested(&resizing, Heading::Destination), "20Gi");
        let larger = manifest("10Gi", "20Gi");
        assert_eq!(requested(&larger, Heading::Source), "10Gi");
        assert_eq!(requested(&manifest("10Gi", "0"), Heading::Source), "10Gi");
    }
}
