//! `docs/options.md`, made from the list of fields.

use std::fmt::Write;

use clap::Arg;

use super::cli::fields;
use super::{CHART, OUTSIDE};

/// The words of the file around its table.
const HEAD: &str = include_str!("docs/head.md");
const TAIL: &str = include_str!("docs/tail.md");

/// The whole file.
pub fn options() -> String {
    let mut text = String::from(HEAD);
    text.push_str("\n| value | variable | flag | default | |\n|---|---|---|---|---|\n");
    for field in fields() {
        let value = match chart_value(&field) {
            Some(value) => format!("`{value}`"),
            None if field.get_help_heading() == Some(OUTSIDE) => String::new(),
            None => "by itself".into(),
        };
        let id = field.get_id().as_str();
        let _ = writeln!(
            text,
            "| {value} | `PVMIGRATE_{}` | {} | {} | {} |",
            id.to_uppercase(),
            flags(&field),
            default(&field),
            meaning(&field)
        );
    }
    text.push('\n');
    text.push_str(TAIL);
    text
}

/// Where the chart's values have a field; none where the chart knows it by itself.
fn chart_value(field: &Arg) -> Option<String> {
    if matches!(field.get_help_heading(), Some(CHART | OUTSIDE)) {
        return None;
    }
    let id = field.get_id().as_str();
    let value = match id {
        "source_sc" => "sourceSC".into(),
        "dest_sc" => "destSC".into(),
        "image" => "image.repository`, `image.tag".into(),
        "image_pull_policy" => "image.pullPolicy".into(),
        _ => match id.split_once('_') {
            Some((part @ ("mover" | "parallelism" | "hold"), rest)) => {
                format!("{part}.{}", camel(rest))
            }
            _ if id.ends_with("_seconds") => format!("timeouts.{}", camel(id)),
            _ => camel(id),
        },
    };
    Some(value)
}

fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut text = words.next().unwrap_or_default().to_string();
    for word in words {
        let (first, rest) = word.split_at(1);
        text.push_str(&first.to_uppercase());
        text.push_str(rest);
    }
    text
}

fn flags(field: &Arg) -> String {
    let all = field.get_long_and_visible_aliases().unwrap_or_default();
    let aliases = field.get_aliases().unwrap_or_default();
    let all = all.iter().chain(&aliases);
    all.map(|flag| format!("`--{flag}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn default(field: &Arg) -> String {
    if field.is_required_set() {
        return "**required**".into();
    }
    if field.is_hide_default_value_set() {
        return String::new();
    }
    let values = field.get_default_values().iter();
    let values: Vec<_> = values
        .map(|value| value.to_string_lossy())
        .filter(|value| !value.is_empty())
        .map(|value| format!("`{value}`"))
        .collect();
    values.join(", ")
}

fn meaning(field: &Arg) -> String {
    let help = field.get_long_help().or(field.get_help());
    // What is in a cell must not end it.
    help.map_or_else(String::new, |help| {
        help.to_string().replace('\n', " ").replace('|', "\\|")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_committed_table_is_the_one_that_the_fields_make() {
        assert_eq!(
            include_str!("../../../docs/options.md"),
            options(),
            "write it again: make docs"
        );
    }

    #[test]
    fn each_field_has_a_value_in_the_chart_or_is_known_to_it() {
        let schema: Value =
            serde_json::from_str(include_str!("../../../charts/pvmigrate/values.schema.json"))
                .unwrap();
        let template = [
            include_str!("../../../charts/pvmigrate/templates/job/_env.tpl"),
            include_str!("../../../charts/pvmigrate/templates/job/_template.tpl"),
        ]
        .concat();
        for field in fields() {
            let id = field.get_id().as_str().to_uppercase();
            assert!(
                template.contains(&format!("PVMIGRATE_{id},"))
                    || field.get_help_heading() == Some(OUTSIDE),
                "_env.tpl does not set PVMIGRATE_{id}"
            );
            let Some(value) = chart_value(&field) else {
                continue;
            };
            for path in value.split("`, `") {
                let mut place = &schema;
                for step in path.split('.') {
                    place = &place["properties"][step];
                }
                assert!(place.is_object(), "values.schema.json has no {path}");
            }
        }
    }
}
