//! What the fuzzer has found worth keeping, and every review that a Kubernetes sent, once more:
//! the webhook never panics, and never allows what it cannot read.

#[path = "corpus/check.rs"]
mod check;

use std::path::Path;

/// Each file of a folder to a check; how many there were.
fn replay(folder: &str, check: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let name = folder.display();
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut count = 0;
    for file in files {
        let file = file.unwrap().path();
        println!("{}", file.display());
        check(&std::fs::read(&file).unwrap());
        count += 1;
    }
    count
}

#[test]
fn reviews_as_they_were_sent() {
    assert!(replay("src/samples", check::body) > 40);
}

#[test]
fn bytes_that_the_fuzzer_kept() {
    assert!(replay("fuzz/corpus/bytes", check::body) > 10);
}

#[test]
fn edits_that_the_fuzzer_kept() {
    assert!(replay("fuzz/corpus/edits", check::edits) > 10);
}

#[test]
fn reviews_that_end_too_early() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/samples");
    let review = std::fs::read(folder.join("pod-generated-name.json")).unwrap();
    for end in (0..review.len()).step_by(5) {
        check::body(&review[..end]);
    }
}

/// What `make fuzz` does for minutes and with the compiler's help, for a second and without.
#[test]
fn reviews_with_random_edits() {
    let variable = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
    };
    let cases = variable("PVMIGRATE_TEST_CASES").unwrap_or(300);
    let mut state: u64 = variable("PVMIGRATE_TEST_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs())
    });
    println!("PVMIGRATE_TEST_SEED={state}");
    let mut random = || {
        // xorshift; a seed of 0 would stay 0.
        state = state.max(1);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..cases {
        let edits = 1 + random() % 6;
        let bytes: Vec<u8> = (0..=3 * edits).map(|_| random().to_le_bytes()[3]).collect();
        check::edits(&bytes);
    }
}
