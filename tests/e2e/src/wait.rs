use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

/// Looks until what is seen is what was waited for. The closure's error is "not yet", and says what
/// it saw instead; after `limit` the last one is returned, with what was waited for.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(seen) if started.elapsed() > limit => {
                return Err(seen.context(format!("waited {limit:?} for {what}; last seen")));
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
