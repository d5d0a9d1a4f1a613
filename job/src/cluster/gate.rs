//! The gate that every write passes: shut for good when the Lease lapses, and for the end of the
//! process once the writes in hand are done.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::stop::Stop;

/// More writes than are ever in hand at once.
const WRITES: u32 = 1024;

pub struct Gate {
    in_hand: Semaphore,
    /// The moment from which another Job may work; none before the Lease is held.
    lapses: Mutex<Option<Instant>>,
}

impl Gate {
    pub fn open() -> Self {
        Self {
            in_hand: Semaphore::new(WRITES as usize),
            lapses: Mutex::default(),
        }
    }

    /// Lets a write begin. A process that was stopped or cut off for long finds the gate shut: it
    /// may meet a state that it would take for its own work, and that no precondition tells apart.
    pub async fn pass(&self) -> Result<SemaphorePermit<'_>, Stop> {
        let permit = self.in_hand.acquire().await;
        let permit = permit.map_err(|_| Stop::Api("the Job is ending".into()))?;
        if self.has_lapsed() {
            return Err(Stop::Superseded("the Lease has lapsed; the work".into()));
        }
        Ok(permit)
    }

    pub fn has_lapsed(&self) -> bool {
        let lapses = *self.lapses.lock().unwrap_or_else(PoisonError::into_inner);
        lapses.is_some_and(|moment| Instant::now() >= moment)
    }

    /// The Lease was renewed: writes may begin until this moment.
    pub fn open_until(&self, moment: Instant) {
        *self.lapses.lock().unwrap_or_else(PoisonError::into_inner) = Some(moment);
    }

    /// Waits, for at most `limit`, until the writes in hand are done. No other begins.
    pub async fn quiesce(&self, limit: Duration) {
        let all = tokio::time::timeout(limit, self.in_hand.acquire_many(WRITES)).await;
        if all.is_err() {
            tracing::warn!("a write was still in hand");
        }
        self.in_hand.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lapsed_lease_shuts_the_gate_and_a_renewed_one_opens_it() {
        let gate = Gate::open();
        assert!(gate.pass().await.is_ok(), "before the Lease is asked for");
        gate.open_until(Instant::now() + Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(gate.pass().await.is_ok());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(matches!(gate.pass().await, Err(Stop::Superseded(_))));
        gate.open_until(Instant::now() + Duration::from_secs(10));
        assert!(gate.pass().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_write_in_hand_is_waited_for_and_no_other_begins() {
        let gate = std::sync::Arc::new(Gate::open());
        let in_hand = gate.pass().await.unwrap();
        let closing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.quiesce(Duration::from_secs(10)).await }
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!closing.is_finished());
        drop(in_hand);
        closing.await.unwrap();
        assert!(matches!(gate.pass().await, Err(Stop::Api(_))));
    }
}
