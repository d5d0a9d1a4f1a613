//! When the CA is renewed, and which one certificates are issued by meanwhile. Pure: what the
//! Secret holds and the time in, what to write and what to serve out.
//!
//! ```text
//!              two thirds of its life,               the settling       the settling
//!              or asked for                          time later         time once more
//!  alone ──────────────────────────▶ both published ────────────▶ … ────────────▶ alone again
//!  ca.crt  current                   current, next       current, next       next
//!  issuer  current                   current             next                next
//! ```
//!
//! The settling time is what everybody who has to believe our certificates has to take in a new
//! `ca.crt`: the Job follows the Secret for as long as the fence stands. That the issuer changes
//! in the middle is written nowhere: each replica knows it from the next CA's own certificate, so
//! one that is cut off from the API server does not fall behind. Clocks that differ by less than
//! the settling time do no harm: both CAs are believed all that time before and after.

use std::time::Duration;

use jiff::Timestamp;

use crate::authority::Authority;

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    pub authority: Duration,
    pub leaf: Duration,
    pub settle: Duration,
}

impl Lives {
    /// How often the Secret has to be looked at, so that no replica is late by much of any of
    /// these. By the wall clock, not by a timer of days: that one would stand still while its
    /// machine is suspended.
    pub fn look_every(&self) -> Duration {
        (self.settle.min(self.leaf) / 10).min(Duration::from_secs(30))
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    pub current: Authority,
    /// While a rotation is under way: the one that takes over.
    pub next: Option<Authority>,
    /// The text by which somebody asked for a rotation, and the last one that was obeyed.
    pub asked: Option<String>,
    pub obeyed: Option<String>,
}

/// What has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Publish another CA beside the current one.
    Begin,
    /// The next CA is the current one from now on; the old certificate is dropped.
    Finish,
    /// The current one is worth nothing any more, and there is no other: make one.
    Replace,
}

impl Ring {
    pub fn alone(current: Authority) -> Self {
        Self {
            current,
            next: None,
            asked: None,
            obeyed: None,
        }
    }

    pub fn change(&self, lives: &Lives, now: Timestamp) -> Option<Change> {
        match &self.next {
            Some(next) => (now >= next.made + lives.settle * 2).then_some(Change::Finish),
            None if self.current.expires <= now => Some(Change::Replace),
            None if now >= self.renew_at() || self.is_asked() => Some(Change::Begin),
            None => None,
        }
    }

    /// The CA that certificates are issued by.
    pub fn issuer(&self, lives: &Lives, now: Timestamp) -> &Authority {
        match &self.next {
            Some(next) if now >= next.made + lives.settle || self.current.expires <= now => next,
            _ => &self.current,
        }
    }

    /// Both in one text: what a client has to believe.
    pub fn certificates(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        format!("{}{}", self.current.certificate, next.unwrap_or_default())
    }

    #[must_use]
    pub fn begun(&self, next: Authority) -> Self {
        Self {
            next: Some(next),
            obeyed: self.asked.clone(),
            ..self.clone()
        }
    }

    #[must_use]
    pub fn finished(&self) -> Self {
        Self {
            current: self.next.clone().unwrap_or_else(|| self.current.clone()),
            next: None,
            ..self.clone()
        }
    }

    /// Two thirds of the current CA's life are over.
    pub fn renew_at(&self) -> Timestamp {
        let Authority { made, expires, .. } = self.current;
        made + made.duration_until(expires) * 2 / 3
    }

    /// Whether somebody has asked for a rotation that was not begun yet.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some() && self.asked != self.obeyed
    }
}

#[cfg(test)]
mod tests;
