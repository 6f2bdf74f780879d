//! The cluster at a glance: is all well, and if not, what to do.
//!
//! Each part is asked for by itself: what a visitor may not see, or what does not answer in time, is said in its place, and the rest is
//! shown.

use headwater_client::{BrokerDescription, ClusterListing, QuorumDescription};
use maud::{Markup, html};

use super::figures::Figures;
use super::format::{bytes, count, duration};
use super::health::{self, Finding, Look, Weight, findings};
use super::page::{Part, ROOT, Refusal, Reply, live, page, table, tiles};
use super::visit::{Visit, within};

/// Seconds until the page is asked for again while somebody looks.
const REFRESH: u32 = 5;

pub(super) async fn show(visit: Visit) -> Reply {
    let admin = visit.client.admin();
    let (listing, quorum, here, figures) = futures::join!(
        within(admin.list_brokers()),
        within(admin.describe_quorum()),
        within(admin.describe_broker()),
        visit.console().figures.look(),
    );
    // Nobody is known who may see nothing at all.
    if let (Err(refusal), Err(_), Err(_)) = (&listing, &quorum, &here) {
        return Err(Refusal::new(refusal.status, refusal.what.clone()));
    }
    // What a broker counts is for those to see who may see the cluster.
    let figures = listing.is_ok().then_some(figures).and_then(Result::ok);
    let look = Look {
        brokers: listing.as_ref().map(brokers).unwrap_or_default(),
        leaderless: listing.as_ref().map_or(0, |listing| listing.leaderless),
        under_min_isr: listing.as_ref().map_or(0, |listing| listing.under_min_isr),
        under_replicated: listing.as_ref().map_or(0, |listing| listing.under_replicated),
        quorum: quorum.as_ref().ok().map(coordinators),
        here: here.as_ref().ok().and_then(here_is),
        figures: figures.as_deref().map(Figures::health),
    };
    let is_whole = listing.is_ok() && quorum.is_ok() && here.is_ok();
    let body = html! {
        h1 { "Overview" }
        (live("overview", REFRESH, &html! {
            (verdict(&findings(&look), is_whole))
            (cluster(&listing, &quorum))
            h2 { "Brokers" }
            @match &listing { Ok(listing) => (broker_table(listing)), Err(refusal) => (refusal) }
            h2 { "Coordinators" }
            @match &quorum { Ok(quorum) => (coordinator_table(quorum)), Err(refusal) => (refusal) }
            h2 { "The broker that answered" }
            @match &here { Ok(here) => (this_broker(here, figures.as_deref())), Err(refusal) => (refusal) }
        }))
        h2 { "Throughput of this broker" }
        div.charts data-charts="throughput" {}
        p.hint { a href={ (ROOT) "/charts" } { "All charts" } }
    };
    Ok(page(Part::Overview, "Overview", &body))
}

fn brokers(listing: &ClusterListing) -> Vec<health::Broker> {
    let broker = |broker: &headwater_client::BrokerListing| health::Broker {
        id: broker.id.get(),
        is_fenced: broker.is_fenced,
        is_cordoned: broker.is_cordoned,
        replicas: broker.replicas,
    };
    listing.brokers.iter().map(broker).collect()
}

fn coordinators(quorum: &QuorumDescription) -> health::Quorum {
    let voters = quorum.members.iter().filter(|member| member.is_voter);
    let silent = voters.clone().filter(|member| member.committed.is_err());
    health::Quorum {
        has_active: quorum.active.is_some(),
        voters: voters.count(),
        silent: silent.map(|member| member.id.get()).collect(),
    }
}

fn here_is(here: &BrokerDescription) -> Option<health::Here> {
    let status = here.status?;
    Some(health::Here {
        cores: status.cores,
        cores_up: status.cores_up,
        offline: status.partitions_offline,
        disk: status.disk.map(|disk| (disk.free_bytes, disk.size_bytes)),
    })
}

/// The first thing that anybody wants to know. Colour says nothing that words do not.
fn verdict(found: &[Finding], is_whole: bool) -> Markup {
    let worst = found.first().map(|finding| finding.weight);
    let (class, text) = match worst {
        Some(Weight::Bad) => ("bad", "Something is wrong."),
        Some(Weight::Warn) => ("warn", "It works, and somebody should look."),
        _ if !is_whole => ("note", "What can be seen is well. Not all could be looked at."),
        _ => ("well", "All is well."),
    };
    html! {
        section.verdict.(class) aria-label="Is all well?" {
            p.said { strong { (text) } }
            @if !found.is_empty() {
                ul { @for finding in found { (finding_row(finding)) } }
            }
        }
    }
}

fn finding_row(finding: &Finding) -> Markup {
    let (class, word) = match finding.weight {
        Weight::Bad => ("bad", "Wrong"),
        Weight::Warn => ("warn", "Look"),
        Weight::Note => ("note", "Note"),
    };
    html! {
        li {
            span.badge.(class) { (word) } " "
            (finding.what)
            span.next { "What to do: " (finding.next) }
        }
    }
}

fn cluster(listing: &Result<ClusterListing, Refusal>, quorum: &Result<QuorumDescription, Refusal>) -> Markup {
    let mut shown = Vec::new();
    if let Ok(listing) = listing {
        let there = listing.brokers.iter().filter(|broker| !broker.is_fenced).count();
        let cores: usize = listing
            .brokers
            .iter()
            .filter(|broker| !broker.is_fenced)
            .map(|broker| broker.core_ports.len())
            .sum();
        shown.push(("Brokers", there.to_string(), format!(" of {}", listing.brokers.len())));
        shown.push(("Cores", cores.to_string(), String::new()));
        shown.push(("Partitions", count(listing.partitions as u64), String::new()));
        shown.push(("Not all in sync", count(listing.under_replicated as u64), String::new()));
        shown.push(("Too few in sync", count(listing.under_min_isr as u64), String::new()));
        shown.push(("No leader", count(listing.leaderless as u64), String::new()));
    }
    if let Ok(quorum) = quorum {
        let active = quorum.active.map_or("nobody".to_owned(), |active| active.to_string());
        shown.push(("Active coordinator", active, String::new()));
    }
    let shown: Vec<(&str, String, &str)> = shown
        .iter()
        .map(|(name, figure, note)| (*name, figure.clone(), note.as_str()))
        .collect();
    tiles(&shown)
}

/// Used on the page of the brokers too.
pub(super) fn broker_table(listing: &ClusterListing) -> Markup {
    let row = |broker: &headwater_client::BrokerListing| {
        html! {
            th scope="row" { (broker.id) }
            td { @match (broker.is_fenced, broker.is_cordoned) {
                (true, _) => span.badge.bad { "not there" },
                (_, true) => span.badge.note { "cordoned" },
                _ => span.badge.well { "there" },
            } }
            td { (broker.host) ":" (broker.port) }
            td { (broker.rack.as_deref().unwrap_or("—")) }
            td.n { (broker.core_ports.len()) }
            td.n { (count(broker.leads as u64)) @if broker.preferred != broker.leads { small { " of " (count(broker.preferred as u64)) } } }
            td.n { (count(broker.in_sync as u64)) @if broker.in_sync != broker.replicas { small { " of " (count(broker.replicas as u64)) } } }
        }
    };
    let rows: Vec<Markup> = listing.brokers.iter().map(row).collect();
    let columns = [
        ("Broker", false),
        ("State", false),
        ("Address", false),
        ("Rack", false),
        ("Cores", true),
        ("Leads", true),
        ("In sync", true),
    ];
    table("Brokers of the cluster", &columns, &rows)
}

fn coordinator_table(quorum: &QuorumDescription) -> Markup {
    let row = |member: &headwater_client::QuorumMember| {
        html! {
            th scope="row" { (member.id) }
            td { @if quorum.active == Some(member.id) { span.badge.well { "active" } }
                 @else if member.committed.is_err() { span.badge.bad { "silent" } }
                 @else { "there" } }
            td { (member.address) }
            td { @if member.is_voter { "votes" } @else { "listens" } }
            td.n { @match &member.committed { Ok(committed) => (count(*committed)), Err(why) => small { (why) } } }
        }
    };
    let rows: Vec<Markup> = quorum.members.iter().map(row).collect();
    let columns = [
        ("Member", false),
        ("State", false),
        ("Address", false),
        ("Voice", false),
        ("Agreed up to", true),
    ];
    html! {
        (table("Members of the coordinator quorum", &columns, &rows))
        p.hint { "Cluster " code { (quorum.cluster_id) } ", term " (quorum.term) "." }
    }
}

/// Used on the page of the brokers too.
pub(super) fn this_broker(here: &BrokerDescription, figures: Option<&Figures>) -> Markup {
    let mut shown = vec![("Broker", here.id.to_string(), format!(" {}", here.version))];
    if let Some(status) = here.status {
        shown.push(("Cores", status.cores_up.to_string(), format!(" of {}", status.cores)));
        shown.push(("Runs for", duration(status.uptime.as_secs()), String::new()));
        shown.push(("Connections", count(status.connections), String::new()));
        shown.push((
            "Groups",
            count(status.groups),
            format!(" {} members", count(status.group_members)),
        ));
        shown.push(("Taken in", bytes(status.received_bytes), String::new()));
        shown.push(("Sent to consumers", bytes(status.fetched_bytes), String::new()));
    }
    if let Some(figures) = figures {
        shown.push((
            "Memory",
            bytes(figures.get("process_resident_memory_bytes") as u64),
            String::new(),
        ));
    }
    let shown: Vec<(&str, String, &str)> = shown
        .iter()
        .map(|(name, figure, note)| (*name, figure.clone(), note.as_str()))
        .collect();
    html! {
        (tiles(&shown))
        @if let Some(disk) = here.status.and_then(|status| status.disk) {
            @let used = disk.size_bytes.saturating_sub(disk.free_bytes);
            p.disk {
                label for="disk" { "Disk" }
                meter #disk min="0" max=(disk.size_bytes) high=(disk.size_bytes / 10 * 9) value=(used) { (bytes(used)) }
                span { (bytes(disk.free_bytes)) " free of " (bytes(disk.size_bytes)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words_and_escaped() {
        let finding = |weight, what: &str| Finding {
            weight,
            what: what.to_owned(),
            next: "<b>do</b>".to_owned(),
        };
        let shown = verdict(&[finding(Weight::Bad, "<script>alert(1)</script>")], true).into_string();
        assert!(shown.contains("Something is wrong."));
        assert!(
            shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && shown.contains("&lt;b&gt;do"),
            "{shown}"
        );
        assert!(verdict(&[], true).into_string().contains("All is well."));
        assert!(verdict(&[], false).into_string().contains("Not all could be looked at"));
        assert!(
            verdict(&[finding(Weight::Note, "")], true)
                .into_string()
                .contains("All is well.")
        );
    }
}
