//! What is wrong with a configuration, in a sentence that names the setting as it was given.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "PVMIGRATE_{variable} or {flag} is missing: set one of them, or use the chart, which does"
    )]
    Missing { variable: String, flag: String },
    #[error("{setting} is {value:?}: {why}")]
    Value {
        /// The variable or the flag.
        setting: String,
        value: String,
        why: String,
    },
    #[error("sourceSC and destSC are both {0:?}: name two different StorageClasses")]
    EqualClasses(String),
    #[error("preflightOnly and skipPreflight are both set, which leaves nothing to do: choose one")]
    NothingToDo,
    #[error(
        "{0} is gone: nothing is copied with rsync any more; docs/options.md says what took its place"
    )]
    Rsync(String),
    /// A command line that is none, or one that asks for help: clap's own words.
    #[error("{0}")]
    Usage(#[from] clap::Error),
}

impl ConfigError {
    /// Blames a variable for what is wrong with its value.
    pub(super) fn of_variable(variable: &str, error: clap::Error) -> Self {
        Self::of(error, Some(variable))
    }

    /// Blames the flag that clap names.
    pub(super) fn of_line(error: clap::Error) -> Self {
        Self::of(error, None)
    }

    fn of(error: clap::Error, variable: Option<&str>) -> Self {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            _ => String::new(),
        };
        let flag = text(ContextKind::InvalidArg);
        // Without the name of its value.
        let flag = flag
            .split([' ', '=', '['])
            .next()
            .unwrap_or_default()
            .to_string();
        match error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => Self::Value {
                setting: variable.map_or(flag, str::to_string),
                value: text(ContextKind::InvalidValue),
                why: why(&error),
            },
            ErrorKind::UnknownArgument if flag.starts_with("--rsync-") => Self::Rsync(flag),
            _ => Self::Usage(error),
        }
    }
}

fn why(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("expected one of {}", valid.join(", "))
        }
        _ => "a value is needed".into(),
    }
}
