//! What a group's migration took, and where its downtime went.

use std::fmt::Write as _;

use jiff::Timestamp;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::Record;
use serde::{Deserialize, Serialize};

/// The figures of one group: of all its claims together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupLine {
    /// The longest that warm passes took over one of its claims.
    pub warm_seconds: f64,
    /// Over that claim of it that had most, the final one included.
    pub passes: u32,
    pub files: u64,
    /// What was written to the destinations, in all passes.
    pub bytes: u64,
    pub bytes_per_second: f64,
    /// From the last moment that its workloads were Ready until they were Ready again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime_seconds: Option<f64>,
    /// The parts of it, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime: Option<Downtime>,
    /// When nothing of it was left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// Where a downtime went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Downtime {
    /// Until no consumer was left.
    pub gone: f64,
    pub final_pass: f64,
    /// Until the claims stood again under their names, and the fence was down.
    pub swap: f64,
    /// Until the workloads were Ready.
    pub thaw: f64,
}

impl GroupLine {
    pub fn of<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> Self {
        let warm = records.clone().filter_map(|record| record.warm.as_ref());
        let finals = records.clone().filter_map(|record| record.pass.as_ref());
        let bytes = warm.clone().map(|warm| warm.bytes).sum::<u64>()
            + finals.clone().map(|pass| pass.totals.bytes).sum::<u64>();
        let seconds = |record: &Record| {
            let warm = record.warm.as_ref().map_or(0.0, |warm| warm.seconds);
            warm + record.pass.as_ref().map_or(0.0, |pass| pass.seconds)
        };
        // Its claims are copied side by side.
        let copying = records.clone().map(seconds).fold(0.0, f64::max);
        let passes = |record: &Record| {
            let warm = record.warm.as_ref().map_or(0, |warm| warm.passes);
            warm + u32::from(record.pass.is_some())
        };
        let stopped = records.clone().filter_map(|record| record.stopped).min();
        let ready = records.clone().filter_map(|record| record.ready).max();
        let done = |record: &Record| record.times.get(&Phase::Done).copied();
        Self {
            warm_seconds: warm.map(|warm| warm.seconds).fold(0.0, f64::max),
            passes: records.clone().map(passes).max().unwrap_or_default(),
            files: finals.map(|pass| pass.totals.files).sum(),
            bytes,
            #[allow(clippy::cast_precision_loss)] // a rate
            bytes_per_second: if copying > 0.0 {
                (bytes as f64 / copying).round()
            } else {
                0.0
            },
            downtime_seconds: stopped
                .zip(ready)
                .map(|(stopped, ready)| between(stopped, ready)),
            downtime: parts(&records, stopped, ready),
            ended: records
                .map(done)
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max()),
        }
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} files, {} bytes in {} passes, {:.1} MB/s, warm {:.1} s",
            self.files,
            self.bytes,
            self.passes,
            self.bytes_per_second / 1e6,
            self.warm_seconds
        );
        if let Some(downtime) = self.downtime_seconds {
            let _ = write!(text, ", downtime {downtime:.1} s");
        }
        if let Some(parts) = &self.downtime {
            let Downtime {
                gone,
                final_pass,
                swap,
                thaw,
            } = parts;
            let _ = write!(
                text,
                " (gone {gone:.1}, final pass {final_pass:.1}, swap {swap:.1}, thaw {thaw:.1})"
            );
        }
        text
    }
}

/// Of a group that went through them in order, forward: one that was copied twice, or went back,
/// has a downtime that has no such parts.
fn parts<'a>(
    records: &(impl Iterator<Item = &'a Record> + Clone),
    stopped: Option<Timestamp>,
    ready: Option<Timestamp>,
) -> Option<Downtime> {
    if records
        .clone()
        .any(|record| record.heading == Heading::Source)
    {
        return None;
    }
    let last = |phase| {
        let times = records.clone().map(|record| record.times.get(&phase));
        times
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .max()
            .copied()
    };
    let moments = [
        stopped?,
        last(Phase::Frozen)?,
        last(Phase::Verified)?,
        last(Phase::Restored)?,
        ready?,
    ];
    let [gone, final_pass, swap, thaw] =
        [0, 1, 2, 3].map(|part| between(moments[part], moments[part + 1]));
    moments.is_sorted().then_some(Downtime {
        gone,
        final_pass,
        swap,
        thaw,
    })
}

fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mover::tests::record;
    use pvmigrate_record::order::PassReport;
    use pvmigrate_record::record::Warm;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn moved(warm: Option<Warm>, bytes: u64) -> Record {
        let mut record = record("Filesystem");
        record.warm = warm;
        let mut pass = PassReport {
            seconds: 0.5,
            ..PassReport::default()
        };
        (pass.totals.files, pass.totals.bytes) = (10, bytes);
        record.pass = Some(pass);
        (record.stopped, record.ready) = (Some(at(1000)), Some(at(4000)));
        record.times = [
            (Phase::Frozen, at(2000)),
            (Phase::Verified, at(2200)),
            (Phase::Restored, at(3000)),
            (Phase::Done, at(5000)),
        ]
        .into();
        record
    }

    #[test]
    fn a_group_is_as_long_away_as_all_its_claims_together() {
        let warm = Warm {
            passes: 3,
            bytes: 900,
            seconds: 1.5,
            ..Warm::default()
        };
        let mut second = moved(None, 50);
        second.times.insert(Phase::Verified, at(2500));
        let records = [moved(Some(warm), 50), second];
        let line = GroupLine::of(records.iter());
        assert_eq!((line.passes, line.files, line.bytes), (4, 20, 1000));
        assert!((line.bytes_per_second - 500.0).abs() < 1e-9);
        assert_eq!(
            line.downtime,
            Some(Downtime {
                gone: 1.0,
                final_pass: 0.5,
                swap: 0.5,
                thaw: 1.0
            })
        );
        assert_eq!(line.ended, Some(at(5000)));
        assert_eq!(
            line.text(),
            "20 files, 1000 bytes in 4 passes, 0.0 MB/s, warm 1.5 s, downtime 3.0 s (gone 1.0, final pass 0.5, swap 0.5, thaw 1.0)"
        );
    }

    #[test]
    fn a_group_that_was_not_stopped_or_went_back_has_no_parts_of_a_downtime() {
        let mut record = moved(None, 0);
        (record.stopped, record.ready) = (None, None);
        let line = GroupLine::of([record].iter());
        assert_eq!((line.downtime_seconds, line.downtime), (None, None));
        let mut record = moved(None, 0);
        record.heading = Heading::Source;
        assert_eq!(GroupLine::of([record].iter()).downtime, None);
    }
}
