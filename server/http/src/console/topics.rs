//! Topics, with their sizes and what they take in, and one topic with its partitions and settings.

use axum::extract::Path;
use futures::StreamExt;
use headwater_client::{BrokerId, ConfigEntry, PartitionDescription, TopicDescription, TopicListing};
use maud::{Markup, html};

use super::format::{bytes, count};
use super::page::{Part, ROOT, Refusal, Reply, live, page, paged, pager, table, tiles, topic_link};
use super::params::encode;
use super::visit::{Visit, within};

/// Topics on a page.
const TOPICS: usize = 25;
/// Partitions on a page.
const PARTITIONS: usize = 100;
/// Topics that are described at one time.
const AT_ONCE: usize = 4;
const REFRESH: u32 = 10;

/// What a topic comes to.
#[derive(Default)]
struct Sum {
    replicas: usize,
    records: u64,
    bytes: u64,
    /// Partitions without a leader, and such as are not in sync.
    leaderless: usize,
    lagging: usize,
}

impl Sum {
    fn of(topic: &TopicDescription) -> Sum {
        let mut sum = Sum::default();
        for partition in &topic.partitions {
            let who = &partition.replicas;
            sum.replicas = sum.replicas.max(who.replicas.len());
            sum.leaderless += usize::from(partition.leader.get() < 0);
            sum.lagging += usize::from(who.isr.len() < who.replicas.len());
            if partition.error.is_none() {
                sum.records += records(partition);
                sum.bytes += partition.size_bytes;
            }
        }
        sum
    }
}

/// Offsets between the first record and the end, which with compaction are more than there are records.
fn records(partition: &PartitionDescription) -> u64 {
    partition
        .high_watermark
        .get()
        .saturating_sub(partition.log_start_offset.get())
}

pub(super) async fn list(visit: Visit) -> Reply {
    let admin = visit.client.admin();
    let wanted = visit.params.get("q").unwrap_or_default();
    let with_internal = visit.params.get("internal").is_some();
    let topics = within(admin.topics()).await?;
    let is_meant = |topic: &TopicListing| {
        let name = topic.name.as_str();
        name.contains(wanted) && (with_internal || !name.starts_with("__"))
    };
    let meant: Vec<TopicListing> = topics.into_iter().filter(is_meant).collect();
    let (shown, at, pages) = paged(&meant, visit.params.number("page")?, TOPICS);
    let described = futures::stream::iter(shown.to_vec()).map(|topic| {
        let admin = admin.clone();
        async move {
            within(admin.describe_topic(topic.name.as_str()))
                .await
                .map(|described| Sum::of(&described))
        }
    });
    let sums: Vec<Result<Sum, Refusal>> = described.buffered(AT_ONCE).collect().await;
    let rows: Vec<Markup> = shown
        .iter()
        .zip(&sums)
        .map(|(topic, sum)| topic_row(topic, sum))
        .collect();
    let columns = [
        ("Topic", false),
        ("Partitions", true),
        ("Replicas", true),
        ("Records", true),
        ("Size", true),
        ("In, here", true),
        ("Out, here", true),
        ("State", false),
    ];
    let path = format!(
        "{ROOT}/topics?q={}{}",
        encode(wanted),
        if with_internal { "&internal=1" } else { "" }
    );
    let body = html! {
        h1 { "Topics" }
        form.filter method="get" role="search" {
            label { "Name contains " input type="search" name="q" value=(wanted) data-find; }
            label.check { input type="checkbox" name="internal" value="1" checked[with_internal]; " internal ones too" }
            button { "Show" }
        }
        (live("topics", REFRESH, &html! {
            p.hint { (count(meant.len() as u64)) " topics. Records and sizes are those of the leaders, one replica each." }
            (table("Topics", &columns, &rows))
        }))
        (pager(&path, at, pages))
    };
    Ok(page(Part::Topics, "Topics", &body))
}

fn topic_row(topic: &TopicListing, sum: &Result<Sum, Refusal>) -> Markup {
    let name = topic.name.as_str();
    html! {
        th scope="row" { (topic_link(name)) }
        td.n { (count(topic.partitions as u64)) }
        @match sum {
            Ok(sum) => {
                td.n { (sum.replicas) }
                td.n { (count(sum.records)) }
                td.n { (bytes(sum.bytes)) }
                td.n data-rate="in" data-topic=(name) { "—" }
                td.n data-rate="out" data-topic=(name) { "—" }
                td { (state(sum)) }
            }
            Err(refusal) => { td colspan="6" { (refusal.what) } }
        }
    }
}

fn state(sum: &Sum) -> Markup {
    html! {
        @if sum.leaderless > 0 { span.badge.bad { (sum.leaderless) " without a leader" } }
        @else if sum.lagging > 0 { span.badge.warn { (sum.lagging) " not all in sync" } }
        @else { span.badge.well { "in sync" } }
    }
}

pub(super) async fn show(Path(name): Path<String>, visit: Visit) -> Reply {
    let topic = within(visit.client.admin().describe_topic(&name)).await?;
    let sum = Sum::of(&topic);
    let (shown, at, pages) = paged(&topic.partitions, visit.params.number("page")?, PARTITIONS);
    let rows: Vec<Markup> = shown.iter().map(|partition| partition_row(&name, partition)).collect();
    let columns = [
        ("Partition", true),
        ("Leader", true),
        ("Core", true),
        ("Replicas", false),
        ("In sync (ISR)", false),
        ("May lead (ELR)", false),
        ("Start", true),
        ("End", true),
        ("Records", true),
        ("Segments", true),
        ("Size", true),
    ];
    let own = topic.configs.iter().filter(|entry| entry.is_own).count();
    let path = format!("{ROOT}/topics/{}", encode(&name));
    let body = html! {
        h1 { "Topic " span.name { (name) } }
        p.actions {
            a.button href={ (path) "/records" } { "Browse records" } " "
            a.button href={ (path) "/records?tail=1" } { "Watch what comes" }
        }
        (live("topic", REFRESH, &html! {
            (tiles(&[
                ("Partitions", count(topic.partitions.len() as u64), ""),
                ("Replicas", sum.replicas.to_string(), ""),
                ("Records", count(sum.records), ""),
                ("Size", bytes(sum.bytes), ""),
            ]))
            p { (state(&sum)) }
            (table("Partitions", &columns, &rows))
        }))
        (pager(&path, at, pages))
        h2 { "Throughput on this broker" }
        div.charts data-charts="topic" data-topic=(name) {}
        h2 { "Settings" }
        p.hint { (own) " set on the topic; the others follow the brokers. Change them with " code { "headwater topic alter " (name) " --set NAME=VALUE" } "." }
        (settings(&topic.configs))
        p.hint { "Identity " code { (topic.id.as_uuid()) } }
    };
    Ok(page(Part::Topics, &name, &body))
}

fn partition_row(topic: &str, partition: &PartitionDescription) -> Markup {
    let who = &partition.replicas;
    let records_at = format!(
        "{ROOT}/topics/{}/records?partition={}",
        encode(topic),
        partition.partition
    );
    html! {
        th.n scope="row" { a href=(records_at) { (partition.partition) } }
        td.n { @if partition.leader.get() < 0 { span.badge.bad { "nobody" } } @else { (partition.leader) } }
        td.n { (partition.core) }
        td { (ids(&who.replicas))
            @if !who.adding.is_empty() { small { " joining " (ids(&who.adding)) } }
            @if !who.removing.is_empty() { small { " leaving " (ids(&who.removing)) } }
            @if !who.offline.is_empty() { " " span.badge.bad { "failed on " (ids(&who.offline)) } } }
        td { @if who.isr.len() < who.replicas.len() { span.badge.warn { (ids(&who.isr)) } } @else { (ids(&who.isr)) } }
        td { (ids(&who.elr)) }
        @if let Some(error) = &partition.error {
            td colspan="5" { (error) }
        } @else {
            td.n { (count(partition.log_start_offset.get())) }
            td.n { (count(partition.high_watermark.get())) }
            td.n { (count(records(partition))) }
            td.n { (partition.segments) }
            td.n { (bytes(partition.size_bytes)) }
        }
    }
}

fn ids(brokers: &[BrokerId]) -> String {
    let ids: Vec<String> = brokers.iter().map(ToString::to_string).collect();
    if ids.is_empty() {
        "—".to_owned()
    } else {
        ids.join(" ")
    }
}

fn settings(configs: &[ConfigEntry]) -> Markup {
    let row = |entry: &ConfigEntry| {
        html! {
            th scope="row" { code { (entry.name) } }
            td { code { (entry.value) } }
            td { @if entry.is_own { span.badge.note { "topic" } } @else { "broker" } }
        }
    };
    // What somebody has set comes first.
    let (own, rest) = (
        configs.iter().filter(|entry| entry.is_own),
        configs.iter().filter(|entry| !entry.is_own),
    );
    let rows: Vec<Markup> = own.chain(rest).map(row).collect();
    table(
        "Settings of the topic",
        &[("Setting", false), ("Value", false), ("Set by", false)],
        &rows,
    )
}
