//! Charts of what the broker counts. The page has the figures as a table; the script draws them over time, while somebody looks.

use maud::{Markup, html};
use serde_json::Value;

use super::figures::Figures;
use super::format::{bytes, count};
use super::page::{Part, Reply, data, live, page, table};
use super::visit::{Visit, within};

/// The stages of a request, in their order, with what each is.
const STAGES: [(&str, &str); 8] = [
    ("receive", "from a frame's first byte to its last"),
    ("vet", "looking at the records of a produce request"),
    ("append", "numbering records and copying them into memory"),
    ("write", "a write to a segment"),
    ("flush", "making what was written durable"),
    ("acknowledge", "from the append until the records are durable"),
    ("fetch_wait", "until there are records to answer a fetch with"),
    ("send", "until the socket has taken a response"),
];

pub(super) async fn show(visit: Visit) -> Reply {
    // Who may not see the cluster is told so.
    within(visit.client.admin().list_brokers()).await?;
    let figures = visit.console().figures.look().await?;
    let body = html! {
        h1 { "Charts" }
        p.hint { "What this broker counts, while you look. " code { "/metrics" } " has all of it for Prometheus." }
        div.charts data-charts="all" {}
        h2 { "Since the broker was started" }
        (live("figures", 10, &html! { (stage_table(&figures)) (sum_table(&figures)) }))
    };
    Ok(page(Part::Charts, "Charts", &body))
}

fn stage_table(figures: &Figures) -> Markup {
    let shown = |stage: &str, share: f64| {
        figures
            .quantile(stage, share)
            .map_or("—".to_owned(), |(seconds, _)| seconds_text(seconds))
    };
    let row = |(stage, what): &(&str, &str)| {
        let total = figures.quantile(stage, 0.5).map_or(0.0, |(_, total)| total);
        html! {
            th scope="row" { code { (stage) } }
            td { (what) }
            td.n { (count(total as u64)) }
            td.n { (shown(stage, 0.5)) }
            td.n { (shown(stage, 0.99)) }
            td.n { (shown(stage, 0.999)) }
        }
    };
    let rows: Vec<Markup> = STAGES
        .iter()
        .filter(|(stage, _)| figures.quantile(stage, 0.5).is_some())
        .map(row)
        .collect();
    let columns = [
        ("Stage", false),
        ("What it is", false),
        ("Times", true),
        ("Half within", true),
        ("99 % within", true),
        ("99.9 % within", true),
    ];
    table("How long the stages of requests take", &columns, &rows)
}

fn seconds_text(seconds: f64) -> String {
    if !seconds.is_finite() {
        "longer than all".to_owned()
    } else if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

fn sum_table(figures: &Figures) -> Markup {
    let number = |name: &str| count(figures.get(name) as u64);
    let size = |name: &str| bytes(figures.get(name) as u64);
    let requests = figures.get("headwater_requests_total") + figures.get("headwater_kafka_requests_total");
    let mut rows = vec![
        ("Requests", count(requests as u64)),
        ("Responses with an error", number("headwater_errors_total")),
        ("Taken in", size("headwater_received_bytes_total")),
        ("Sent", size("headwater_sent_bytes_total")),
        ("Records sent to consumers", size("headwater_fetch_bytes_total")),
        ("Written to segments", size("headwater_disk_bytes_total{write}")),
        ("Made durable by flushes", size("headwater_disk_bytes_total{flush}")),
        ("Writes of the journal", number("headwater_journal_frames_total")),
        ("Tail buffers", size("headwater_tail_buffer_bytes")),
        ("Tail buffers at most", size("headwater_tail_buffer_bytes_max")),
        ("Partitions led", number("headwater_partitions_led")),
        ("Replicas catching up", number("headwater_replicas_catching_up")),
        ("Connections", number("headwater_connections")),
        ("Stalls of a core", number("headwater_stalls_total")),
    ];
    let cores: Vec<(String, String)> = figures
        .cores()
        .map(|(core, seconds)| (format!("Core {core} was busy"), format!("{seconds:.0} s")))
        .collect();
    rows.extend(cores.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let version = figures.version().to_owned();
    rows.push(("Version", version));
    let rows: Vec<Markup> = rows
        .iter()
        .map(|(name, value)| html! { th scope="row" { (name) } td.n { (value) } })
        .collect();
    table("What was counted", &[("Figure", false), ("Value", true)], &rows)
}

/// What the script asks for, again and again while somebody looks.
pub(super) async fn figures(visit: Visit) -> Reply {
    within(visit.client.admin().list_brokers()).await?;
    let figures = visit.console().figures.look().await?;
    let mut shown = figures.json(visit.params.all("topic"));
    shown["version"] = Value::from(figures.version());
    Ok(data(&shown))
}
