//! Consumer groups: who is in them, and how far they are behind.
//!
//! A group's id is whatever somebody has chosen, so it is a value in the address and never a part of the path.

use futures::StreamExt;
use headwater_client::{GroupDescription, GroupListing, GroupMember, GroupState, PartitionLag};
use maud::{Markup, html};
use serde_json::json;

use super::format::{count, visible};
use super::page::{Part, ROOT, Refusal, Reply, data, live, page, paged, pager, table, tiles, topic_link};
use super::params::encode;
use super::visit::{Visit, within};

/// Groups on a page, and partitions and members on the page of one.
const GROUPS: usize = 25;
const PARTITIONS: usize = 200;
const MEMBERS: usize = 100;
/// Groups whose lag is looked up at one time.
const AT_ONCE: usize = 4;
const REFRESH: u32 = 10;

pub(super) async fn list(visit: Visit) -> Reply {
    let groups = visit.client.admin().groups();
    let wanted = visit.params.get("q").unwrap_or_default();
    let all = within(groups.list()).await?;
    let meant: Vec<GroupListing> = all
        .into_iter()
        .filter(|group| group.group_id.contains(wanted))
        .collect();
    let (shown, at, pages) = paged(&meant, visit.params.number("page")?, GROUPS);
    let lags = futures::stream::iter(shown.to_vec()).map(|group| {
        let groups = groups.clone();
        async move { within(groups.lag(&group.group_id)).await.map(|lags| total(&lags)) }
    });
    let lags: Vec<Result<Total, Refusal>> = lags.buffered(AT_ONCE).collect().await;
    let rows: Vec<Markup> = shown
        .iter()
        .zip(&lags)
        .map(|(group, lag)| row(&group.group_id, group.state.name(), group.members, lag))
        .collect();
    let columns = [
        ("Group", false),
        ("State", false),
        ("Members", true),
        ("Partitions", true),
        ("Behind by", true),
    ];
    let body = html! {
        h1 { "Groups" }
        form.filter method="get" role="search" {
            label { "Id contains " input type="search" name="q" value=(wanted) data-find; }
            button { "Show" }
        }
        (live("groups", REFRESH, &html! {
            p.hint { (count(meant.len() as u64)) " groups." }
            (table("Consumer groups", &columns, &rows))
        }))
        (pager(&format!("{ROOT}/groups?q={}", encode(wanted)), at, pages))
    };
    Ok(page(Part::Groups, "Groups", &body))
}

fn row(id: &str, state: &str, members: usize, lag: &Result<Total, Refusal>) -> Markup {
    html! {
        th scope="row" { a href=(address(id)) { bdi { (visible(id)) } } }
        td { (state_badge(state)) }
        td.n { (count(members as u64)) }
        @match lag {
            Ok(total) => { td.n { (count(total.partitions as u64)) } td.n { (total.shown()) } }
            Err(refusal) => { td colspan="2" { (refusal.what) } }
        }
    }
}

fn state_badge(state: &str) -> Markup {
    let class = match state {
        "Stable" => "well",
        "Empty" | "Dead" => "note",
        _ => "warn",
    };
    html! { span.badge.(class) { (state) } }
}

/// Where a group's page is.
pub(super) fn address(id: &str) -> String {
    format!("{ROOT}/group?id={}", encode(id))
}

/// Over all partitions.
struct Total {
    partitions: usize,
    behind: u64,
    /// Partitions whose lag is not known.
    unknown: usize,
}

impl Total {
    fn shown(&self) -> String {
        match self.unknown {
            0 => count(self.behind),
            unknown => format!("{}, {unknown} not known", count(self.behind)),
        }
    }
}

fn total(lags: &[PartitionLag]) -> Total {
    Total {
        partitions: lags.len(),
        behind: lags.iter().filter_map(PartitionLag::lag).sum(),
        unknown: lags.iter().filter(|lag| lag.lag().is_none()).count(),
    }
}

pub(super) async fn show(visit: Visit) -> Reply {
    let id = visit.params.need("id")?;
    let groups = visit.client.admin().groups();
    let (group, lags) = futures::join!(within(groups.describe(id)), within(groups.lag(id)));
    let group = group?;
    let body = html! {
        h1 { "Group " bdi.name { (visible(id)) } }
        @if let Some(done) = visit.params.number::<usize>("done")? { p.done role="status" { (count(done as u64)) " offsets were set." } }
        (live("group", REFRESH, &html! {
            (head(&group, lags.as_ref().ok()))
            h2 { "Partitions" }
            @match &lags { Ok(lags) => (lag_table(lags, visit.params.number("page")?, id)), Err(refusal) => (refusal) }
            h2 { "Members" }
            (member_table(&group.members))
        }))
        h2 { "How far it is behind, while you look" }
        div.charts data-charts="lag" data-source={ (ROOT) "/group/lag?id=" (encode(id)) } {}
        h2 { "Where it goes on" }
        @if visit.console().writes {
            @if group.members.is_empty() && matches!(group.state, GroupState::Empty | GroupState::Dead) {
                p.actions { a.button href={ (ROOT) "/group/reset?id=" (encode(id)) } { "Set its offsets" } }
            } @else {
                p.hint { "Its offsets can be set once it has no members: stop them first." }
            }
        } @else {
            p.hint { "This console only shows. " code { "headwater group reset" } " sets offsets." }
        }
    };
    Ok(page(Part::Groups, &format!("Group {}", visible(id)), &body))
}

fn head(group: &GroupDescription, lags: Option<&Vec<PartitionLag>>) -> Markup {
    let total = lags.map(|lags| total(lags));
    html! {
        p { (state_badge(group.state.name())) }
        (tiles(&[
            ("Behind by", total.as_ref().map_or("—".to_owned(), Total::shown), ""),
            ("Partitions", total.as_ref().map_or("—".to_owned(), |total| count(total.partitions as u64)), ""),
            ("Members", count(group.members.len() as u64), ""),
            ("Generation", group.generation.to_string(), ""),
            ("Assigned by", dash(&visible(&group.protocol_name)), ""),
        ]))
    }
}

fn dash(text: &str) -> String {
    if text.is_empty() {
        "—".to_owned()
    } else {
        text.to_owned()
    }
}

fn lag_table(lags: &[PartitionLag], at: Option<usize>, id: &str) -> Markup {
    let (shown, at, pages) = paged(lags, at, PARTITIONS);
    let offset =
        |offset: Option<headwater_client::Offset>| offset.map_or("—".to_owned(), |offset| count(offset.get()));
    let row = |lag: &PartitionLag| {
        html! {
            th scope="row" { (topic_link(lag.topic.as_str())) }
            td.n { (lag.partition) }
            td.n { (offset(lag.committed)) }
            td.n { (offset(lag.log_start)) }
            td.n { (offset(lag.log_end)) }
            td.n { (lag.lag().map_or("not known".to_owned(), count)) }
            td { bdi { (lag.member_id.as_deref().map_or("—".into(), visible)) } }
        }
    };
    let rows: Vec<Markup> = shown.iter().map(row).collect();
    let columns = [
        ("Topic", false),
        ("Partition", true),
        ("Committed", true),
        ("Start", true),
        ("End", true),
        ("Behind by", true),
        ("Member", false),
    ];
    html! {
        (table("How far the group is in each partition", &columns, &rows))
        (pager(&address(id), at, pages))
    }
}

fn member_table(members: &[GroupMember]) -> Markup {
    let row = |member: &GroupMember| {
        let assigned = member
            .assignment
            .as_ref()
            .map(|all| all.iter().map(|of| of.partitions.len()).sum::<usize>());
        let topics = member.subscription.as_deref().unwrap_or_default();
        let topics = topics
            .iter()
            .take(20)
            .map(|topic| visible(topic))
            .collect::<Vec<_>>()
            .join(", ");
        html! {
            th scope="row" { bdi { (visible(&member.member_id)) } @if let Some(own) = &member.instance_id { small { " " bdi { (visible(own)) } } } }
            td { bdi { (visible(&member.client_id)) } }
            td { (visible(&member.client_host)) }
            td { bdi { (dash(&topics)) } }
            td.n { (assigned.map_or("not known".to_owned(), |assigned| count(assigned as u64))) }
        }
    };
    let rows: Vec<Markup> = members.iter().take(MEMBERS).map(row).collect();
    let columns = [
        ("Member", false),
        ("Client", false),
        ("Host", false),
        ("Wants", false),
        ("Partitions", true),
    ];
    html! {
        (table("Members of the group", &columns, &rows))
        @if members.len() > MEMBERS { p.hint { (members.len() - MEMBERS) " more." } }
    }
}

/// What the chart of a group asks for.
pub(super) async fn lag(visit: Visit) -> Reply {
    let id = visit.params.need("id")?;
    let lags = within(visit.client.admin().groups().lag(id)).await?;
    let mut topics: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for lag in &lags {
        *topics.entry(lag.topic.as_str()).or_default() += lag.lag().unwrap_or(0);
    }
    Ok(data(&json!({ "lag": topics })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_text_on_the_page_and_one_value_in_the_address() {
        let id = "a&id=b\"><script>alert(1)</script>/../\u{202e}";
        let lag = Ok(Total {
            partitions: 1,
            behind: 1_000,
            unknown: 1,
        });
        let shown = row(id, "Stable", 0, &lag).into_string();
        assert!(
            !shown.contains("<script") && shown.contains("&lt;script&gt;") && shown.contains("\\u{202e}"),
            "{shown}"
        );
        assert!(shown.contains("id=a%26id%3Db%22%3E%3Cscript%3E"), "{shown}");
        assert!(shown.contains("1,000, 1 not known"), "{shown}");
    }
}
