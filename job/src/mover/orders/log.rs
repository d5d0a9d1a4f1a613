//! A mover's log as it grows.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use futures::io::AsyncBufReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};

/// Its lines, from its beginning on, over one connection.
pub type Log = Pin<Box<dyn Stream<Item = io::Result<String>> + Send>>;

pub async fn log(pods: &Api<Pod>, name: &str) -> Result<Log, kube::Error> {
    let following = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let log = pods.log_stream(name, &following).await?;
    Ok(Box::pin(log.lines()))
}

/// The log that was heard last, where it goes on: what is said next is heard without another
/// connection.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Option<(String, Log)>>>);

impl Kept {
    /// Keeps the log of the pod with this UID.
    pub fn keep(&self, uid: &str, log: Log) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((uid.into(), log));
    }

    /// The log of that pod, if it was kept.
    pub fn take(&self, uid: &str) -> Option<Log> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.filter(|(of, _)| of == uid).map(|(_, log)| log)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn a_log_is_kept_for_its_pod_and_goes_on_where_it_was() {
        let line = |text: &str| Ok(text.to_string());
        let mut log: Log = Box::pin(stream::iter([line("one"), line("two")]));
        assert_eq!(log.next().await.unwrap().unwrap(), "one");
        let kept = Kept::default();
        kept.keep("u", log);
        let mut log = kept.clone().take("u").unwrap();
        assert_eq!(log.next().await.unwrap().unwrap(), "two");
        assert!(kept.take("u").is_none(), "it is heard by one");
        kept.keep("u", log);
        assert!(kept.take("v").is_none(), "its mover was made again");
    }
}
