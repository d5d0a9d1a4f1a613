//! What a pass leaves out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns for paths from the root of a tree, without a leading `/`.
///
/// `*` and `?` stand for anything within one name, `**` for any number of directories, `[…]` for
/// one of some characters, `{a,b}` for one of some texts. A pattern that names a directory stands
/// for it and all that is in it.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    patterns: GlobSet,
}

impl Exclusions {
    /// The error names the pattern and what is wrong with it.
    pub fn parse<P: AsRef<str>>(patterns: &[P]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim_matches('/');
            set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
        }
        Ok(Self {
            patterns: set.build()?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn matches(&self, path: &[u8]) -> bool {
        self.patterns.is_match(OsStr::from_bytes(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_from_the_root() {
        let table = [
            ("cache", "cache", true),
            ("cache", "a/cache", false),
            ("/cache/", "cache", true),
            ("**/cache", "a/b/cache", true),
            ("**/cache", "cache", true),
            ("*.tmp", "x.tmp", true),
            ("*.tmp", "a/x.tmp", false),
            ("a/**/*.log", "a/b/c/d.log", true),
            ("log.[0-9]", "log.7", true),
            ("{tmp,run}/*", "run/x", true),
        ];
        for (pattern, path, expected) in table {
            let exclusions = Exclusions::parse(&[pattern]).unwrap();
            assert_eq!(
                exclusions.matches(path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
        let bytes = Exclusions::parse(&["a/*"]).unwrap();
        assert!(bytes.matches(b"a/\xff\xfe"));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let error = Exclusions::parse(&["fine", "not[fine"]).unwrap_err();
        assert_eq!(error.glob(), Some("not[fine"));
    }
}
