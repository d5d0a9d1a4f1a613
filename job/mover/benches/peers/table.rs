//! The results as Markdown.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::disk::Kind;
use crate::rows::{Ours, Row};
use crate::tool::{Run, Tool};

const BEGIN: &str = "<!-- from here on written by make bench-mover -->\n";
const END: &str = "<!-- until here -->";
const PEERS: [Tool; 4] = [Tool::Rsync, Tool::Cp, Tool::Tar, Tool::Dd];

/// Up to the first that failed.
type Runs = Vec<Result<Run, String>>;

/// All runs of one work in one direction.
pub struct Outcome {
    row: Row,
    direction: String,
    runs: Vec<(Tool, Runs)>,
}

impl Outcome {
    pub fn new(row: Row, from: Kind, to: Kind) -> Self {
        let direction = if row.job.content().is_tree() {
            format!("{from} → {to}")
        } else {
            "device → device".into()
        };
        Outcome {
            runs: row.tools().map(|tool| (tool, Vec::new())).collect(),
            row,
            direction,
        }
    }

    /// Where another run of a tool belongs; nowhere if it has failed.
    pub fn runs(&mut self, tool: Tool) -> Option<&mut Runs> {
        let found = self.runs.iter_mut().find(|(of, _)| *of == tool);
        found
            .map(|(_, runs)| runs)
            .filter(|runs| runs.iter().all(Result::is_ok))
    }

    /// Whether no tool failed.
    pub fn complete(&self) -> bool {
        let mut all = self.runs.iter().flat_map(|(_, runs)| runs);
        all.all(Result::is_ok)
    }

    fn good(&self, tool: Tool) -> Option<Vec<Run>> {
        let (_, runs) = self.runs.iter().find(|(of, _)| *of == tool)?;
        runs.iter().map(|run| run.as_ref().ok().copied()).collect()
    }

    fn median(&self, tool: Tool) -> Option<f64> {
        Some(spread(&self.good(tool)?)?.1)
    }

    fn ratio(&self, ours: &Ours, peer: Tool) -> Option<f64> {
        Some(self.median(peer)? / self.median(Tool::Mover(ours.level))?)
    }

    fn cell(&self, tool: Tool) -> String {
        if !self.runs.iter().any(|(of, _)| *of == tool) {
            return String::new();
        }
        let runs = self.good(tool).unwrap_or_default();
        match spread(&runs) {
            Some((_, only, _)) if runs.len() == 1 => format!("{only:.2}"),
            Some((least, median, most)) => format!("{median:.2} ({least:.2}–{most:.2})"),
            None => "failed".into(),
        }
    }

    /// What is to be reached, what was, and whether that is enough; in words.
    fn judge(&self, ours: &Ours) -> [String; 3] {
        let runs = self.good(Tool::Mover(ours.level)).unwrap_or_default();
        let (mut wanted, mut found, mut met) = (Vec::new(), Vec::new(), !runs.is_empty());
        for goal in &ours.goals {
            wanted.push(format!("{:.2} × {}", goal.factor, goal.than));
            let ratio = self.ratio(ours, goal.than);
            met &= ratio.is_some_and(|ratio| ratio >= goal.factor);
            found.push(ratio.map_or("–".into(), |it| format!("{it:.2} × {}", goal.than)));
        }
        if let Some(mib) = ours.memory {
            wanted.push(format!("under {mib} MiB"));
            met &= runs.iter().all(|run| run.kib < mib << 10);
        }
        if let Some(bytes) = ours.writes {
            wanted.push(format!("writes {} MiB", bytes >> 20));
            let most = runs.iter().map(|run| run.bytes).max();
            met &= most.is_some_and(|most| most <= bytes);
            found.push(most.map_or("–".into(), |it| format!("wrote {} MiB", it >> 20)));
        }
        if wanted.is_empty() {
            let peer = self.row.peers.first().copied();
            let ratio = peer.and_then(|peer| Some((peer, self.ratio(ours, peer)?)));
            found.extend(ratio.map(|(peer, it)| format!("{it:.2} × {peer}")));
            return [found.concat(), String::new(), String::new()];
        }
        let met = if met { "yes" } else { "**no**" };
        [found.join(", "), wanted.join(", "), met.into()]
    }

    fn lines(&self, text: &mut String) {
        for ours in &self.row.ours {
            let tool = Tool::Mover(ours.level);
            let runs = self.good(tool).unwrap_or_default();
            let kib = runs.iter().map(|run| run.kib).max().unwrap_or(0);
            let peak = match kib {
                0 => String::new(),
                kib => kib.div_ceil(1024).to_string(),
            };
            let mut cells = vec![
                self.row.what.clone(),
                self.direction.clone(),
                ours.level.name().to_owned(),
                self.cell(tool),
            ];
            cells.extend(PEERS.map(|peer| self.cell(peer)));
            cells.extend(self.judge(ours));
            cells.push(peak);
            text.push_str(&row(&cells));
        }
    }
}

/// Least, median, most.
fn spread(runs: &[Run]) -> Option<(f64, f64, f64)> {
    let mut seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let (low, high) = (seconds.len().checked_sub(1)? / 2, seconds.len() / 2);
    let median = f64::midpoint(seconds[low], seconds[high]);
    Some((seconds[0], median, seconds[seconds.len() - 1]))
}

fn row(cells: &[impl AsRef<str>]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |\n", cells.join(" | "))
}

pub fn markdown(facts: &[(&str, String)], outcomes: &[Outcome], quick: bool) -> String {
    let mut text = String::new();
    if quick {
        text.push_str("Small sizes, one round: these figures mean nothing.\n\n");
    }
    text.push_str(&row(&["fact", "value"]));
    text.push_str(&row(&["---"; 2]));
    for (name, value) in facts {
        text.push_str(&row(&[*name, value]));
    }
    let heads = [
        "work",
        "direction",
        "verify",
        "ours, s",
        "rsync, s",
        "cp, s",
        "tar, s",
        "dd, s",
        "ratio",
        "to reach",
        "reached",
        "peak MiB",
    ];
    text.push('\n');
    text.push_str(&row(&heads));
    text.push_str(&row(&["---"; 12]));
    for outcome in outcomes {
        outcome.lines(&mut text);
    }
    let failures = outcomes.iter().flat_map(|outcome| {
        let of_tool = |(tool, runs): &'_ (Tool, Runs)| {
            let error = runs.iter().find_map(|run| run.as_ref().err())?;
            let (what, direction) = (&outcome.row.what, &outcome.direction);
            Some(format!("- {what}, {direction}: {tool} failed: {error}\n"))
        };
        outcome.runs.iter().filter_map(of_tool).collect::<Vec<_>>()
    });
    let failures: String = failures.collect();
    if !failures.is_empty() {
        let _ = write!(text, "\n{failures}");
    }
    text
}

/// Replaces what is between the markers; without a text it only finds out whether it could.
pub fn write_between_markers(file: &Path, text: Option<&str>) -> Result<()> {
    let name = file.display();
    let old = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let (head, rest) = old
        .split_once(BEGIN)
        .with_context(|| format!("{name} has no line {}", BEGIN.trim()))?;
    let (_, tail) = rest
        .split_once(END)
        .with_context(|| format!("{name} has no line {END}"))?;
    let Some(text) = text else {
        return Ok(());
    };
    fs::write(file, format!("{head}{BEGIN}\n{text}\n{END}{tail}"))
        .with_context(|| format!("cannot write {name}"))
}
