//! How the Job ends. Its exit code is its interface: installers and GitOps tools read it.

use std::process::ExitCode;

/// The end of a run. See the table in `README.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything is migrated, or was, or there is nothing to do.
    Done,
    /// The API could not be reached, or the process was told to stop: the next pod goes on.
    Interrupted,
    /// The configuration is wrong. Final.
    Config,
    /// Preflight refused; nothing was changed. Final.
    Refused,
    /// Some claims failed; everything else is done and every workload runs again. Final.
    Failed,
    /// Another Job of this release is at work. Final.
    Busy,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Interrupted => 1,
            Self::Config => 2,
            Self::Refused => 3,
            Self::Failed => 4,
            Self::Busy => 5,
        }
    }

    /// Whether another pod of the Job could not do better: the Job then has to fail at once.
    pub fn is_final_failure(self) -> bool {
        match self {
            Self::Done | Self::Interrupted => false,
            Self::Config | Self::Refused | Self::Failed | Self::Busy => true,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
