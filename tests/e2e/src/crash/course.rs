//! The course of a run that nothing interrupts, and the points that follow from it.

use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::application::Kind;
use super::point::{Ending, Point, Strike, reference};
use super::release::Release;
use crate::{Cluster, When, Write};

/// Replays the pseudo-random points of an earlier run, which printed it.
const SEED_VARIABLE: &str = "PVMIGRATE_TEST_SEED";

pub struct Course {
    kind: Kind,
    ending: Ending,
    /// All of them: a write that is new in the Job is a new point by itself.
    writes: Vec<Write>,
}

impl Course {
    /// Runs it, checks its end, and says what it wrote.
    pub async fn run(cluster: &Cluster, kind: Kind, ending: Ending) -> Result<Self> {
        let release = Release::install(cluster).await?;
        let begun = Instant::now();
        let writes = reference(&release, kind, ending)
            .await
            .with_context(|| format!("{kind:?}, {ending:?}, without a crash"))?;
        release.uninstall().await?;
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{kind:?}, {ending:?}: {} writes, {seconds:.1} s without a crash",
            writes.len()
        );
        Ok(Self {
            kind,
            ending,
            writes,
        })
    }

    /// Killed at each write, before and after it.
    pub fn kills(&self) -> Vec<Point> {
        let both = [When::Before, When::After];
        let strikes = both.map(|when| Strike::Kill(when, None));
        self.writes
            .iter()
            .flat_map(|write| strikes.map(|strike| self.point(write, strike)))
            .collect()
    }

    /// Killed twice, at pseudo-random writes.
    pub fn double_kills(&self, wanted: usize) -> Vec<Point> {
        let given = std::env::var(SEED_VARIABLE)
            .ok()
            .and_then(|seed| seed.parse().ok());
        let since = UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
        let seed = given.unwrap_or_else(|| since.subsec_nanos().into());
        println!("double kills with {SEED_VARIABLE}={seed}");
        let mut random = Random(seed);
        let when = |bit: usize| [When::Before, When::After][bit];
        (0..wanted)
            .map(|_| {
                let write = &self.writes[random.below(self.writes.len())];
                let first = when(random.below(2));
                let second = (1 + random.below(self.writes.len()), when(random.below(2)));
                self.point(write, Strike::Kill(first, Some(second)))
            })
            .collect()
    }

    /// Told to end at each write.
    pub fn terminations(&self) -> Vec<Point> {
        self.each(Strike::Terminate)
    }

    /// Outlived by another Job at each write.
    pub fn outlivings(&self) -> Vec<Point> {
        self.each(Strike::Outlive)
    }

    /// Killed at each write, before and after it, and aborted.
    pub fn aborts(&self) -> Vec<Point> {
        let both = [When::Before, When::After].map(|when| Strike::Abort(when, None));
        self.writes
            .iter()
            .flat_map(|write| both.map(|strike| self.point(write, strike)))
            .collect()
    }

    /// The same, and the abort is killed at one of its first writes and repeated.
    pub fn double_aborts(&self) -> Vec<Point> {
        let numbered = self.writes.iter().enumerate();
        let point = |(index, write): (usize, &Write)| {
            let again = Some((1 + index % 12, When::After));
            self.point(write, Strike::Abort(When::After, again))
        };
        numbered.map(point).collect()
    }

    fn each(&self, strike: Strike) -> Vec<Point> {
        self.writes
            .iter()
            .map(|write| self.point(write, strike))
            .collect()
    }

    fn point(&self, write: &Write, strike: Strike) -> Point {
        Point {
            kind: self.kind,
            ending: self.ending,
            write: write.clone(),
            strike,
        }
    }
}

/// As many of them as this, evenly over the list.
pub fn spread<T: Clone>(all: &[T], wanted: usize) -> Vec<T> {
    let wanted = wanted.min(all.len());
    (0..wanted)
        .map(|index| all[(2 * index + 1) * all.len() / (2 * wanted)].clone())
        .collect()
}

/// splitmix64: the same numbers for the same seed, wherever it runs.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap_or_default();
        number % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_even_and_never_more_than_all() {
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(spread(&all, 2), [2, 7]);
        assert_eq!(spread(&all, 5), [1, 3, 5, 7, 9]);
        assert_eq!(spread(&all, 20), all);
        assert!(spread::<usize>(&[], 3).is_empty());
    }

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let of = |seed| {
            let mut random = Random(seed);
            (0..5).map(|_| random.below(100)).collect::<Vec<_>>()
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }
}
