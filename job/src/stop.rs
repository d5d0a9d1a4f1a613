//! Why a step stopped, and what follows from it.

use pvmigrate_record::phase::ImpossibleStep;

#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The next fact cannot be made true: the group goes back, its applications run on their
    /// sources, the other groups go on.
    #[error("{0}")]
    Refused(String),
    /// A consumer was, or may have been, where none may be: the claim goes back to its source
    /// and the copy starts again.
    #[error("{0}")]
    Repeat(String),
    /// A consumer cannot reach its claim for the mover's sake: the mover goes at once, and stands
    /// ready again where the consumer runs.
    #[error("{0}")]
    Moved(String),
    /// The applications were started again and did not become Ready. Nothing goes back by itself
    /// from there: they may have written.
    #[error("{0}")]
    NotReady(String),
    /// A newer Job has written its epoch: whatever this one decided no longer applies.
    #[error("{0} was taken over by a newer Job")]
    Superseded(String),
    /// The API does not answer. The next pod goes on.
    #[error("{0}")]
    Api(String),
    #[error(transparent)]
    Impossible(#[from] ImpossibleStep),
}

impl Stop {
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

impl From<kube::Error> for Stop {
    fn from(error: kube::Error) -> Self {
        match &error {
            // The API server understood, and said no for good: its sentence is the cause.
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 405 | 422) => {
                Self::Refused(status.message.clone())
            }
            kube::Error::Api(status) => Self::Api(format!("API server: {}", status.message)),
            other => Self::Api(sources(other)),
        }
    }
}

/// An error with its causes: the outermost of a connection error says nothing by itself.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
