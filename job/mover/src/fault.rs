//! Why an entry is not copied, or not equal.

use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("source: cannot {doing}: {errno}")]
    Source { doing: String, errno: Errno },
    #[error("destination: cannot {doing}: {errno}")]
    Destination { doing: String, errno: Errno },
    /// An application wrote meanwhile.
    #[error("the source {0} while it was copied")]
    Changed(&'static str),
    /// Why is said of the name under which it was tried.
    #[error("another name of it was not copied")]
    OtherName,
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    TooSmall(String),
}

impl Fault {
    /// Names the side and what was being done there, for `map_err`.
    pub fn source(doing: impl Into<String>) -> impl FnOnce(Errno) -> Fault {
        move |errno| match errno {
            Errno::NOENT => Fault::Changed("vanished"),
            // A directory that moved, or an entry that became another.
            Errno::STALE | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::SPIPE => {
                Fault::Changed("was replaced")
            }
            _ => Fault::Source {
                doing: doing.into(),
                errno,
            },
        }
    }

    pub fn destination(doing: impl Into<String>) -> impl FnOnce(Errno) -> Fault {
        move |errno| Fault::Destination {
            doing: doing.into(),
            errno,
        }
    }

    /// Whether it is to be expected while applications write.
    pub fn is_change(&self) -> bool {
        matches!(self, Fault::Changed(_) | Fault::OtherName)
    }

    /// Whether every further write would fail the same way.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Fault::Destination {
                errno: Errno::NOSPC | Errno::DQUOT | Errno::ROFS,
                ..
            } | Fault::TooSmall(_)
        )
    }
}
