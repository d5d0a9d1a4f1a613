//! The figures as Markdown, and where they go.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{Figures, RATE};

const BEGIN: &str = "<!-- from here on written by make bench-fence -->\n";
const END: &str = "<!-- until here -->";

pub fn text(figures: &Figures, load: &str) -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once([':', '=']));
        value.map_or("unknown".into(), |(_, value)| {
            value.trim().trim_matches('"').to_string()
        })
    };
    let date = jiff::Timestamp::now().strftime("%F");
    let mib = |kib: u64| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024);
    let reached = |good: bool| if good { "yes" } else { "**no**" };
    let Figures {
        full_speed, steady, ..
    } = figures;
    let p99 = steady.permille(990);
    let rows = [
        ("machine", field("/proc/cpuinfo", "model name"), "", ""),
        ("system", field("/etc/os-release", "PRETTY_NAME"), "", ""),
        ("date", date.to_string(), "", ""),
        ("load before", load.into(), "", ""),
        (
            "fenced claims in memory",
            figures.claims.to_string(),
            "",
            "",
        ),
        (
            "reviews",
            format!(
                "{} kinds, {} of them refused, {} bytes each in the mean",
                figures.bodies, figures.refused, figures.mean_bytes
            ),
            "",
            "",
        ),
        (
            "answered at full speed",
            format!(
                "{} a second, for {} s",
                full_speed.per_second, figures.seconds
            ),
            "5,000 a second",
            reached(full_speed.per_second >= 5000),
        ),
        (
            "processor time of a review then",
            format!(
                "{} µs",
                figures.processor.as_micros() / full_speed.reviews.max(1) as u128
            ),
            "",
            "",
        ),
        (
            &format!("answer at {RATE} a second"),
            format!(
                "p50 {:.2} ms, p99 {p99:.2} ms, the longest {:.2} ms; {} reviews",
                steady.permille(500),
                steady.permille(1000),
                steady.reviews
            ),
            "p99 under 5 ms",
            reached(p99 < 5.0),
        ),
        (
            "resident before the first review",
            mib(figures.resident_kib),
            "",
            "",
        ),
        (
            "resident at most",
            mib(figures.peak_kib),
            "32 MiB",
            reached(figures.peak_kib < 32 * 1024),
        ),
    ];
    let mut text =
        String::from("| what | figure | to reach | reached |\n| --- | --- | --- | --- |\n");
    for (what, figure, goal, reached) in rows {
        let _ = writeln!(text, "| {what} | {figure} | {goal} | {reached} |");
    }
    text
}

/// Replaces what is between the markers; without a text it only finds out whether it could.
pub fn write_between_markers(file: &Path, text: Option<&str>) -> Result<()> {
    let name = file.display();
    let old = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let no_line = |line: &str| format!("{name} has no line {}", line.trim());
    let (head, rest) = old.split_once(BEGIN).with_context(|| no_line(BEGIN))?;
    let (_, tail) = rest.split_once(END).with_context(|| no_line(END))?;
    let Some(text) = text else {
        return Ok(());
    };
    fs::write(file, format!("{head}{BEGIN}\n{text}\n{END}{tail}"))
        .with_context(|| format!("cannot write {name}"))
}
