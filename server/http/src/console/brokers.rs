//! Brokers, and the settings of the one that answers.

use headwater_client::BrokerSetting;
use maud::{Markup, html};

use super::format::visible;
use super::overview::{broker_table, this_broker};
use super::page::{Part, Reply, live, page, table};
use super::visit::{Visit, within};

const REFRESH: u32 = 10;

pub(super) async fn show(visit: Visit) -> Reply {
    let admin = visit.client.admin();
    let (listing, here) = futures::join!(within(admin.list_brokers()), within(admin.describe_broker()));
    let wanted = visit.params.get("q").unwrap_or_default();
    let figures = if listing.is_ok() {
        visit.console().figures.look().await.ok()
    } else {
        None
    };
    let body = html! {
        h1 { "Brokers" }
        (live("brokers", REFRESH, &html! {
            @match &listing { Ok(listing) => (broker_table(listing)), Err(refusal) => (refusal) }
            h2 { "The broker that answers" }
            @match &here { Ok(here) => (this_broker(here, figures.as_deref())), Err(refusal) => (refusal) }
        }))
        @if let Ok(here) = &here {
            h2 { "Its settings" }
            form.filter method="get" role="search" {
                label { "Name contains " input type="search" name="q" value=(wanted) data-find; }
                button { "Show" }
            }
            (settings(&here.settings, wanted))
            p.hint { "What each means stands in docs/settings.md. They are read from the file, the environment and the command line when the broker starts." }
        }
    };
    Ok(page(Part::Brokers, "Brokers", &body))
}

fn settings(settings: &[BrokerSetting], wanted: &str) -> Markup {
    let row = |setting: &BrokerSetting| {
        html! {
            th scope="row" { code { (setting.name) } }
            td { @match &setting.value { Some(value) => code { (visible(value)) }, None => em { "secret" } } }
        }
    };
    let meant = settings.iter().filter(|setting| setting.name.contains(wanted));
    let rows: Vec<Markup> = meant.map(row).collect();
    table("Settings in force", &[("Setting", false), ("Value", false)], &rows)
}
