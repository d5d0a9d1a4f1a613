//! The command line, and the environment as a part of it: a variable is the flag of its name,
//! placed before those that were really given. So both go through one parser.

use clap::parser::ValueSource;
use clap::{Arg, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::{Config, ConfigError};

const PREFIX: &str = "PVMIGRATE_";

#[derive(Parser)]
#[command(
    version,
    about = "Moves the PersistentVolumeClaims of one StorageClass to another, in place"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Migrate. Each flag can be given as PVMIGRATE_… in the environment too
    Run(Box<Config>),
    /// End a run, told as it was told: what is under way goes back to its source, or to its end
    /// where that is over, and every workload runs again
    Abort(Box<Config>),
    /// Print what a run would do, told as it is told, and what is left to do after it
    Plan(Box<PlanAsked>),
    /// List the claims that are or were migrated, and how far they are
    Status,
    /// Print docs/options.md
    #[command(hide = true)]
    Options,
}

#[derive(Debug, Args)]
pub struct PlanAsked {
    #[command(flatten)]
    pub config: Config,
    /// A table for people, or JSON for programs
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// What was asked: flags go before variables, and an empty variable is one that is not set.
pub fn read(
    environment: impl Iterator<Item = (String, String)>,
    line: &[String],
) -> Result<Verb, ConfigError> {
    let (strict, loose) = (Cli::command(), loose());
    let matches = loose
        .clone()
        .try_get_matches_from(line)
        .map_err(ConfigError::of_line)?;
    // A verb comes first: nothing else has arguments.
    let mut merged: Vec<String> = line.iter().take(2).cloned().collect();
    if let Some((verb, given)) = matches.subcommand() {
        let has = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
        let from_variables = variables(environment, &merged, &loose, verb, has)?;
        let of_verb = strict.find_subcommand(verb).into_iter();
        for arg in of_verb.flat_map(Command::get_arguments) {
            let id = arg.get_id().as_str();
            if arg.is_required_set() && !has(id) && !from_variables.iter().any(|(set, _)| set == id)
            {
                return Err(ConfigError::missing(id));
            }
        }
        merged.extend(from_variables.into_iter().map(|(_, argument)| argument));
    }
    merged.extend(line.iter().skip(2).cloned());
    let matches = strict.try_get_matches_from(merged)?;
    match Cli::from_arg_matches(&matches)?.verb {
        Verb::Run(config) => Ok(Verb::Run(Box::new(config.check()?))),
        Verb::Abort(config) => Ok(Verb::Abort(Box::new(config.check()?))),
        Verb::Plan(asked) => Ok(Verb::Plan(Box::new(PlanAsked {
            config: asked.config.check()?,
            output: asked.output,
        }))),
        other => Ok(other),
    }
}

/// The variables that are settings of this verb and no flag overrides: the field and the argument.
fn variables(
    environment: impl Iterator<Item = (String, String)>,
    call: &[String],
    loose: &Command,
    verb: &str,
    is_given: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut all = Vec::new();
    for (variable, value) in environment.filter(|(_, value)| !value.is_empty()) {
        let Some(id) = variable.strip_prefix(PREFIX).map(str::to_lowercase) else {
            continue;
        };
        let mut arguments = loose
            .find_subcommand(verb)
            .into_iter()
            .flat_map(Command::get_arguments);
        let Some(flag) = arguments
            .find(|arg| arg.get_id() == id.as_str())
            .and_then(Arg::get_long)
        else {
            continue;
        };
        if is_given(&id) || !fields().iter().any(|field| field.get_id() == id.as_str()) {
            continue;
        }
        let argument = format!("--{flag}={value}");
        // Alone, so that it is known whose error it is.
        let alone = call.iter().cloned().chain([argument.clone()]);
        loose
            .clone()
            .try_get_matches_from(alone)
            .map_err(|error| ConfigError::of_variable(&variable, error))?;
        all.push((id, argument));
    }
    Ok(all)
}

/// The list of fields, as clap knows it.
pub fn fields() -> Vec<Arg> {
    let list = Config::augment_args(Command::new("fields"));
    list.get_arguments().cloned().collect()
}

/// The command line where nothing is required: what is not here may be in the environment.
fn loose() -> Command {
    let mut command = Cli::command();
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_string())
        .collect();
    for verb in verbs {
        command = command.mut_subcommand(verb, |verb| {
            verb.mut_args(|argument| argument.required(false))
        });
    }
    command
}

impl ConfigError {
    /// A field that has to be said.
    pub(super) fn missing(id: &str) -> Self {
        Self::Missing {
            variable: id.to_uppercase(),
            flag: format!("--{}", id.replace('_', "-")),
        }
    }
}
