//! The report of a pass while it grows, by all of its threads.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pvmigrate_record::order::{Attribute, PassReport, PathError, Totals, What};

use crate::fault::Fault;
use crate::lock::lock;

/// Errors that are kept with their path; all are counted.
const ERRORS_KEPT: usize = 20;
const BETWEEN_PROGRESS: Duration = Duration::from_secs(1);

/// Told the entries and bytes looked at so far, about once a second.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Tells the progress from within a loop, not more often than it is wanted.
pub struct Teller<'a> {
    progress: Progress<'a>,
    told: Instant,
}

impl<'a> Teller<'a> {
    pub fn new(progress: Progress<'a>) -> Self {
        Teller {
            progress,
            told: Instant::now(),
        }
    }

    pub fn tell(&mut self, ledger: &Ledger) {
        if self.told.elapsed() >= BETWEEN_PROGRESS {
            self.told = Instant::now();
            ledger.tell(self.progress);
        }
    }
}

pub struct Ledger {
    what: What,
    lose: BTreeSet<Attribute>,
    started: Instant,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Nanoseconds.
    looking: AtomicU64,
    full: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    moved: u64,
    first_moved: Option<String>,
    report: PassReport,
}

impl Ledger {
    pub fn new(what: What, lose: &BTreeSet<Attribute>) -> Self {
        Ledger {
            what,
            lose: lose.clone(),
            started: Instant::now(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            looking: AtomicU64::new(0),
            full: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    /// Adds to what the pass did.
    pub fn count(&self, add: impl FnOnce(&mut Totals)) {
        add(&mut self.lock().report.totals);
    }

    /// One more entry was looked at.
    pub fn entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// More bytes were looked at.
    pub fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Time that a thread spent on looking for what may have changed.
    pub fn looked(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.looking.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// The sum of that over all threads.
    pub fn looking(&self) -> Duration {
        Duration::from_nanos(self.looking.load(Ordering::Relaxed))
    }

    pub fn tell(&self, progress: Progress<'_>) {
        progress(
            self.entries.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
    }

    /// A warm pass expects changes and counts them. In a final pass they are errors: something
    /// writes that should not.
    pub fn fault(&self, path: &[u8], fault: &Fault) {
        if fault.is_change() && self.what == What::Warm {
            let mut inner = self.lock();
            inner.moved += 1;
            inner.first_moved.get_or_insert_with(|| shown(path));
            return;
        }
        if fault.is_fatal() {
            self.full.store(true, Ordering::Relaxed);
        }
        self.error(path, fault.to_string());
    }

    pub fn error(&self, path: &[u8], reason: String) {
        let report = &mut self.lock().report;
        report.error_count += 1;
        if report.errors.len() < ERRORS_KEPT {
            report.errors.push(PathError {
                path: shown(path),
                reason,
            });
        }
    }

    pub fn note(&self, note: String) {
        let notes = &mut self.lock().report.notes;
        if notes.len() < ERRORS_KEPT && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// What failed is let go if a setting says so, and counted.
    pub fn unless_lost(
        &self,
        attribute: Attribute,
        result: Result<(), Fault>,
    ) -> Result<(), Fault> {
        match result {
            Err(fault) if self.loses(attribute) && !fault.is_fatal() => {
                let report = &mut self.lock().report;
                *report.lost.entry(attribute).or_default() += 1;
                Ok(())
            }
            result => result,
        }
    }

    /// The same for what is looked at again, and counted then.
    pub fn tolerate(&self, attribute: Attribute, result: Result<(), Fault>) -> Result<(), Fault> {
        match result {
            Err(fault) if self.loses(attribute) && !fault.is_fatal() => Ok(()),
            result => result,
        }
    }

    pub fn loses(&self, attribute: Attribute) -> bool {
        self.lose.contains(&attribute)
    }

    /// Nothing more can be written, so going on would only repeat the error.
    pub fn must_stop(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub fn has_errors(&self) -> bool {
        self.lock().report.error_count > 0
    }

    pub fn close(self) -> PassReport {
        if let (moved, Some(first)) = {
            let inner = self.lock();
            (inner.moved, inner.first_moved.clone())
        } {
            self.note(format!(
                "{moved} entries vanished or changed while they were read, the first of them {first}"
            ));
        }
        let inner = self
            .inner
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut report = inner.report;
        report.seconds = self.started.elapsed().as_secs_f64();
        report.ok = report.error_count == 0;
        report
    }

    /// What the comparison found.
    pub fn verified(&self, verified: pvmigrate_record::order::Verified) {
        self.lock().report.verified = Some(verified);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

/// A path as text: bytes that are not UTF-8 as `\xNN`; the root as `.`.
pub fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
