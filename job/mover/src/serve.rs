//! The mover as a pod: carries out the orders that its annotation file gives.
//!
//! ```text
//! ready ─> look at the order file ─> warm  ─> report ─┐      (until what changes no longer shrinks)
//!           ^                    └─> final ─> report ─┼─> termination message, end
//!           └──────────────────────────(warm)─────────┘
//! ```
//!
//! A mover that waits after warm passes makes another one now and then, so that little is left for the
//! final one, whenever its turn comes. A final order may say that its pass is to begin when the pod is
//! asked to end (`ending`).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pvmigrate_record::order::{Order, PassReport, PathError, Report, What};

use crate::Mover;
use crate::ending::Ending;

/// The file is local memory, and every moment counts once the application is stopped.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// A mover that waits works for at most this part of the time.
const WORKS: u32 = 20;
const BETWEEN_SIGNALS: Duration = Duration::from_millis(5);
/// What a kubelet keeps of a termination message is 4096 bytes.
const TERMINATION_MESSAGE_LIMIT: usize = 4000;

pub struct Config {
    /// UID of the pod that this runs in.
    pub pod: String,
    /// Opened by its path for each look: the kubelet replaces it.
    pub order_file: PathBuf,
    pub termination_log: PathBuf,
    /// How old the last warm pass may become while the mover waits.
    pub fresh_for: Duration,
    pub ending: Ending,
}

/// Serves until a final pass is done, well or not: its report tells which.
///
/// An order counts if it names this pod, or is the warm one that it was made with, and its sequence is
/// greater than the last one's. A file that is missing, empty, or not an order is none.
pub fn serve(config: &Config, mut mover: Mover) -> io::Result<()> {
    mover.check()?;
    say(&Report::Ready {
        pod: config.pod.clone(),
    })?;
    let mut done = None;
    let mut misread = None;
    // The warm order that was carried out last, and when to look again what has changed since.
    let mut fresh = None;
    loop {
        if let Some(order) = look(config, &mut misread)
            && order.pod == config.pod
            && done.is_none_or(|done| order.sequence > done)
        {
            say(&Report::Taken {
                order: order.clone(),
            })?;
            done = Some(order.sequence);
            if order.at_end && !is_asked_to_end(config, &mut mover, &order, &mut fresh)? {
                continue;
            }
            fresh = carry_out(config, &mut mover, &order)?;
            if order.what == What::Final {
                return Ok(());
            }
        }
        freshen(config, &mut mover, &mut fresh)?;
        sleep(BETWEEN_LOOKS);
    }
}

/// Makes one more pass of a warm order, if it is due.
fn freshen(
    config: &Config,
    mover: &mut Mover,
    fresh: &mut Option<(Order, Instant)>,
) -> io::Result<()> {
    let Some((order, _)) = fresh.take_if(|(_, due)| *due <= Instant::now()) else {
        return Ok(());
    };
    let (report, due) = pass(config, mover, &order);
    *fresh = report.ok.then_some((order, due));
    say(&Report::Pass(Box::new(report)))
}

/// Waits until the pod is asked to end, which is the moment for this order's pass; not if another
/// order comes first. An error if the process is to end without having been asked.
fn is_asked_to_end(
    config: &Config,
    mover: &mut Mover,
    order: &Order,
    fresh: &mut Option<(Order, Instant)>,
) -> io::Result<bool> {
    let ending = &config.ending;
    if ending.is_asked() {
        // Whoever gave the order had not seen that.
        return Err(io::Error::other("the pod was ending when its order came"));
    }
    ending.set_at_once(false);
    let mut looked = Instant::now();
    loop {
        // In this order: the hook is done before SIGTERM is sent.
        let terminated = ending.is_terminated();
        if ending.is_asked() {
            return Ok(true);
        }
        if terminated {
            return Err(io::Error::other(
                "SIGTERM came from elsewhere than the kubelet",
            ));
        }
        if looked.elapsed() >= BETWEEN_LOOKS {
            looked = Instant::now();
            if look(config, &mut None).is_some_and(|next| next != *order) {
                ending.set_at_once(true);
                // One that came before that counts as well.
                return if ending.is_terminated() {
                    Err(io::Error::other(
                        "SIGTERM came while its order was replaced",
                    ))
                } else {
                    Ok(false)
                };
            }
            freshen(config, mover, fresh)?;
        }
        sleep(BETWEEN_SIGNALS);
    }
}

/// One pass, and when the next one is due if nothing else is asked for.
fn pass(config: &Config, mover: &mut Mover, order: &Order) -> (PassReport, Instant) {
    let began = Instant::now();
    let mut progress = |entries, bytes| {
        // Whoever reads the output may be gone for a while; the pass goes on.
        let _ = say(&Report::Progress { entries, bytes });
    };
    let mut report = mover.pass(order.what, &mut progress);
    report.order = Some(order.clone());
    let pause = config.fresh_for.max(began.elapsed() * WORKS);
    (report, Instant::now() + pause)
}

/// Carries an order out; returns a warm one that went well, and when what it copied is to be looked at
/// again.
fn carry_out(
    config: &Config,
    mover: &mut Mover,
    order: &Order,
) -> io::Result<Option<(Order, Instant)>> {
    loop {
        let (report, due) = pass(config, mover, order);
        let is_last = order.what == What::Final || report.settled || !report.ok;
        if order.what == What::Final {
            leave_message(&config.termination_log, &report);
        }
        let fresh = report.ok.then(|| (order.clone(), due));
        say(&Report::Pass(Box::new(report)))?;
        // Another order does not wait until the changes no longer shrink.
        if is_last || look(config, &mut None).is_some_and(|next| next != *order) {
            return Ok(fresh);
        }
    }
}

/// Reads the order file. What cannot be read as an order is said once on stderr.
fn look(config: &Config, misread: &mut Option<Vec<u8>>) -> Option<Order> {
    let file = &config.order_file;
    let text = fs::read(file).ok()?;
    if text.trim_ascii().is_empty() || misread.as_ref() == Some(&text) {
        return None;
    }
    match serde_json::from_slice::<Order>(&text) {
        Ok(order) => Some(order.read_by(&config.pod)),
        Err(error) => {
            eprintln!("{} holds no order: {error}", file.display());
            *misread = Some(text);
            None
        }
    }
}

fn say(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

/// Outside a pod there is no such file, and none is made.
fn leave_message(file: &Path, report: &PassReport) {
    let written = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(file)
        .and_then(|mut file| file.write_all(&shortened(report)));
    match written {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("cannot write the termination message: {error}");
        }
        _ => {}
    }
}

/// The report as JSON that fits: first long texts are cut, then the last errors and notes go.
/// Outcome, order, figures and digests always stay.
fn shortened(report: &PassReport) -> Vec<u8> {
    let mut report = report.clone();
    let cut = |text: &mut String| {
        if let Some((end, _)) = text.char_indices().nth(200) {
            text.truncate(end);
            text.push('…');
        }
    };
    let mut text = as_json(&report);
    if text.len() > TERMINATION_MESSAGE_LIMIT {
        for PathError { path, reason } in &mut report.errors {
            cut(path);
            cut(reason);
        }
        report.notes.iter_mut().for_each(cut);
        text = as_json(&report);
    }
    while text.len() > TERMINATION_MESSAGE_LIMIT
        && (report.notes.pop().is_some() || report.errors.pop().is_some())
    {
        text = as_json(&report);
    }
    text
}

fn as_json(report: &PassReport) -> Vec<u8> {
    // A report has nothing in it that JSON cannot say.
    serde_json::to_vec(report).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_report_is_shortened_to_what_a_termination_message_holds() {
        let error = PathError {
            path: "p\u{1}/".repeat(3000),
            reason: "r\"".repeat(400),
        };
        let report = PassReport {
            errors: vec![error; 20],
            error_count: 77,
            notes: vec!["n".repeat(3000); 20],
            ..PassReport::default()
        };
        let text = shortened(&report);
        assert!(text.len() <= TERMINATION_MESSAGE_LIMIT, "{}", text.len());
        let read: PassReport = serde_json::from_slice(&text).unwrap();
        assert_eq!(read.error_count, 77);
        assert!(!read.errors.is_empty());
    }

    #[test]
    fn a_short_report_is_left_as_it_is() {
        let report = PassReport {
            ok: true,
            notes: vec!["n".repeat(500)],
            ..PassReport::default()
        };
        let read: PassReport = serde_json::from_slice(&shortened(&report)).unwrap();
        assert_eq!(read, report);
    }
}
