//! The report of a pass while it grows.

use std::fmt::Write;
use std::time::{Duration, Instant};

use pvmigrate_record::order::{PassReport, PathError, Totals, What};

use crate::fault::Fault;

/// Errors that are kept with their path; all are counted.
const ERRORS_KEPT: usize = 20;
const BETWEEN_PROGRESS: Duration = Duration::from_secs(1);

/// Told the entries and bytes looked at so far, at most once a second.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

pub struct Ledger<'a> {
    what: What,
    started: Instant,
    told: Instant,
    progress: Progress<'a>,
    entries: u64,
    bytes: u64,
    changed: u64,
    first_changed: Option<String>,
    full: bool,
    pub report: PassReport,
}

impl<'a> Ledger<'a> {
    pub fn new(what: What, progress: Progress<'a>) -> Self {
        let now = Instant::now();
        Ledger {
            what,
            started: now,
            told: now,
            progress,
            entries: 0,
            bytes: 0,
            changed: 0,
            first_changed: None,
            full: false,
            report: PassReport::default(),
        }
    }

    pub fn totals(&mut self) -> &mut Totals {
        &mut self.report.totals
    }

    /// One more entry was looked at.
    pub fn entry(&mut self) {
        self.entries += 1;
        self.tell();
    }

    /// More bytes were looked at.
    pub fn bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.tell();
    }

    fn tell(&mut self) {
        if self.told.elapsed() >= BETWEEN_PROGRESS {
            self.told = Instant::now();
            (self.progress)(self.entries, self.bytes);
        }
    }

    /// A warm pass expects changes and counts them. In a final pass they are errors: something
    /// writes that should not.
    pub fn fault(&mut self, path: &[u8], fault: &Fault) {
        if matches!(fault, Fault::Changed(_)) && self.what == What::Warm {
            self.changed += 1;
            self.first_changed.get_or_insert_with(|| shown(path));
            return;
        }
        self.full |= fault.is_fatal();
        self.error(path, fault.to_string());
    }

    pub fn error(&mut self, path: &[u8], reason: String) {
        self.report.error_count += 1;
        if self.report.errors.len() < ERRORS_KEPT {
            self.report.errors.push(PathError {
                path: shown(path),
                reason,
            });
        }
    }

    pub fn note(&mut self, note: String) {
        if self.report.notes.len() < ERRORS_KEPT {
            self.report.notes.push(note);
        }
    }

    /// Nothing more can be written, so going on would only repeat the error.
    pub fn must_stop(&self) -> bool {
        self.full
    }

    pub fn has_errors(&self) -> bool {
        self.report.error_count > 0
    }

    pub fn close(mut self) -> PassReport {
        if let Some(first) = &self.first_changed {
            let note = format!(
                "{} entries vanished or changed while they were read, the first of them {first}",
                self.changed
            );
            self.note(note);
        }
        self.report.seconds = self.started.elapsed().as_secs_f64();
        self.report.ok = self.report.error_count == 0;
        self.report
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
