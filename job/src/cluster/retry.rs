//! Patience with an API server that cannot answer now.

use std::time::Duration;

use tokio::time::Instant;

/// How long a request is repeated while the API server cannot answer.
const RETRY_LIMIT: Duration = Duration::from_secs(60);

/// Whether an answer says only that the API server cannot answer now.
fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// Repeats a request while the API server cannot answer. A write that went through though its
/// answer was lost meets its own precondition on the second try, and is recognised there.
pub async fn retried<T, F, Fut>(mut request: F) -> Result<T, kube::Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let started = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        match request().await {
            Err(error) if is_transient(&error) && started.elapsed() < RETRY_LIMIT => {
                tracing::warn!(%error, "the API server did not answer; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            other => return other,
        }
    }
}
