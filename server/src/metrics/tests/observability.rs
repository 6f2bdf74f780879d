//! The dashboard and the alerts in `docs/deploy/observability` ask for what a broker tells: each metric, each label, and each value of
//! a label.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

use super::super::{Stage, families::SHAPES};
use super::{gathered, text};

const PAGE: &str = include_str!("../../../../docs/metrics.md");

/// Labels that Prometheus gives every sample.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

fn read(name: &str) -> String {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deploy/observability/");
    std::fs::read_to_string(directory.to_owned() + name).unwrap()
}

/// The labels of each family, and what the page says of it.
fn described() -> BTreeMap<String, (BTreeSet<String>, String)> {
    let quoted = |cell: &str| {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut described = BTreeMap::new();
    for row in PAGE.lines().filter(|line| line.starts_with("| `headwater_")) {
        let cells: Vec<&str> = row.split('|').collect();
        let (labels, what) = (quoted(cells[3]), cells[4..].join("|"));
        for name in quoted(cells[1]) {
            let by_core = !what.contains("not by core") && !labels.iter().any(|label| label == "topic");
            let labels = labels.iter().cloned().chain(by_core.then(|| "core".to_owned()));
            described.insert(name, (labels.collect(), what.clone()));
        }
    }
    described
}

/// Every name that Prometheus has of a broker, with its labels and what is said of it.
fn samples() -> BTreeMap<String, (BTreeSet<String>, String)> {
    let described = described();
    let text = text::encode(gathered()).unwrap();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (family, kind) = line.split_once(' ').unwrap();
        let names: Vec<String> = match kind {
            "counter" => vec![format!("{family}_total")],
            "histogram" => ["bucket", "count", "sum"].map(|part| format!("{family}_{part}")).into(),
            _ => vec![family.to_owned()],
        };
        for name in names {
            let said = described.get(&name).or_else(|| described.get(family)).cloned();
            let (mut labels, what) = said.unwrap_or_default();
            labels.extend(name.ends_with("_bucket").then(|| "le".to_owned()));
            samples.insert(name, (labels, what));
        }
    }
    samples
}

/// What the two files ask Prometheus for.
fn expressions() -> Vec<String> {
    fn strings(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) if text.contains("headwater_") || text.contains("process_") => found.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
            Value::Object(values) => values.values().for_each(|value| strings(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    strings(&serde_json::from_str(&read("dashboard.json")).unwrap(), &mut found);
    let alerts = read("alerts.yaml");
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    // Whether a broker could be asked at all is Prometheus's own to say.
    found.extend(alerts.filter(|alert| !alert.starts_with("up{")).map(str::to_owned));
    found
}

#[test]
fn the_page_names_the_labels_that_there_are() {
    let described = described();
    for shape in SHAPES {
        let names = [
            format!("headwater_{}", shape.name),
            format!("headwater_{}_total", shape.name),
        ];
        let (labels, _) = names.iter().find_map(|name| described.get(name)).unwrap();
        let own = shape.label.iter().copied().chain(["core"]).map(str::to_owned);
        assert_eq!(*labels, own.collect(), "{}", shape.name);
    }
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_labels_and_values_that_there_are() {
    let samples = samples();
    let metric = Regex::new(r"\b((?:headwater|process)_[a-z0-9_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)(?:=|!=|=~|!~)"([^"]*)""#).unwrap();
    let by = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let stages: Vec<&str> = Stage::ALL
        .iter()
        .map(|stage| stage.name())
        .chain(["write", "flush"])
        .collect();
    let expressions = expressions();
    assert!(expressions.len() > 50, "{}", expressions.len());
    for expression in &expressions {
        let mut labels: BTreeSet<&str> = OF_PROMETHEUS.into();
        let found: Vec<_> = metric.captures_iter(expression).collect();
        assert!(!found.is_empty(), "{expression}");
        for name in found {
            let Some((own, what)) = samples.get(&name[1]) else {
                panic!("no metric {}: {expression}", &name[1]);
            };
            labels.extend(own.iter().map(String::as_str));
            for wanted in name
                .get(2)
                .into_iter()
                .flat_map(|inner| matcher.captures_iter(inner.as_str()))
            {
                let (label, value) = (wanted.get(1).unwrap().as_str(), wanted.get(2).unwrap().as_str());
                if OF_PROMETHEUS.contains(&label) {
                    continue;
                }
                assert!(own.contains(label), "{} has no label {label}: {expression}", &name[1]);
                for value in value.split('|') {
                    let is_known = match label {
                        "stage" => stages.contains(&value),
                        _ => what.contains(&format!("`{value}`")),
                    };
                    assert!(is_known, "{label} of {} is never {value}: {expression}", &name[1]);
                }
            }
        }
        for grouped in by.captures_iter(expression) {
            for label in grouped[1].split(',').map(str::trim) {
                assert!(labels.contains(label), "nothing has a label {label}: {expression}");
            }
        }
    }
}

#[test]
fn every_panel_has_a_number_of_its_own_and_asks_for_something() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut numbers = BTreeSet::new();
    for panel in panels {
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let targets = panel["targets"].as_array().map_or(0, Vec::len);
        assert_eq!(targets == 0, panel["type"] == "row", "{panel}");
    }
}
