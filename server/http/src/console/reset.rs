//! Sets where a group goes on, after it was shown what that means: the form that does it has the very offsets that were shown, and is
//! refused if the group has moved since.

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt, TryStreamExt};
use headwater_client::{
    CommittedOffset, Error, Offset, OffsetSpec, PartitionIndex, PartitionLag, Timestamp, TopicName,
};
use maud::{Markup, html};

use super::format::{count, parse_time, visible};
use super::groups::address;
use super::page::{Part, ROOT, Refusal, Reply, page, table};
use super::params::{Params, encode};
use super::visit::{Change, Visit, within};
use crate::service::Service;

/// Partitions that are set at one time.
const PARTITIONS_MAX: usize = 2_000;
/// Offsets that are looked up at one time.
const AT_ONCE: usize = 16;

/// Where the group is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(u64),
    Time(i64),
    /// So many records on, or back.
    By(i64),
}

impl Target {
    fn read(params: &Params) -> Result<Option<Target>, Refusal> {
        let lacks = |what: &str| Refusal::bad(format!("Say {what}."));
        Ok(Some(match params.get("to") {
            None => return Ok(None),
            Some("earliest") => Target::Earliest,
            Some("latest") => Target::Latest,
            Some("offset") => Target::Offset(params.number("offset")?.ok_or_else(|| lacks("which offset"))?),
            Some("time") => {
                let time = params.get("time").and_then(parse_time);
                Target::Time(time.ok_or_else(|| lacks("which time, like 2026-01-31 17:20 (UTC)"))?)
            }
            Some("by") => Target::By(params.number("by")?.ok_or_else(|| lacks("by how many records"))?),
            Some(_) => {
                return Err(Refusal::bad(
                    "A group goes on at the earliest, the latest, an offset, a time, or so many records on.",
                ));
            }
        }))
    }

    /// The offset in a partition that begins and ends here; `at` is what a time has come to.
    fn offset(self, lag: &PartitionLag, at: Option<Offset>) -> Option<u64> {
        let (start, end) = (lag.log_start?.get(), lag.log_end?.get());
        let wanted = match self {
            Target::Earliest => start,
            Target::Latest => end,
            Target::Offset(offset) => offset,
            Target::Time(_) => at.map_or(end, Offset::get),
            Target::By(by) => lag.committed.map_or(start, Offset::get).saturating_add_signed(by),
        };
        Some(wanted.clamp(start, end))
    }
}

/// What is to become of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Move {
    topic: String,
    partition: i32,
    from: Option<u64>,
    to: u64,
}

impl Move {
    /// As the form carries it. A topic's name has no spaces.
    fn line(&self) -> String {
        let from = self.from.map_or("-".to_owned(), |from| from.to_string());
        format!("{} {} {from} {}", self.topic, self.partition, self.to)
    }

    fn read(line: &str) -> Option<Move> {
        let mut parts = line.split(' ');
        let (topic, partition) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        let from = match parts.next()? {
            "-" => None,
            from => Some(from.parse().ok()?),
        };
        let to = parts.next()?.parse().ok().filter(|to| i64::try_from(*to).is_ok())?;
        parts.next().is_none().then_some(Move {
            topic,
            partition,
            from,
            to,
        })
    }

    fn means(&self) -> String {
        match self.from {
            None => "begins here".to_owned(),
            Some(from) if from < self.to => format!("skips {}", count(self.to - from)),
            Some(from) if from > self.to => format!("reads {} again", count(from - self.to)),
            Some(_) => "stays".to_owned(),
        }
    }
}

/// The form, and below it what would become of it.
pub(super) async fn show(visit: Visit) -> Reply {
    visit.console().need_writes()?;
    let id = visit.params.need("id")?;
    let target = Target::read(&visit.params)?;
    let topic = visit.params.get("topic");
    let moves = match target {
        Some(target) => Some(moves(&visit, id, topic, target).await?),
        None => None,
    };
    let body = html! {
        h1 { "Offsets of group " a href=(address(id)) { bdi.name { (visible(id)) } } }
        (form(id, &visit.params))
        @if let Some(moves) = &moves { (preview(id, moves)) }
    };
    Ok(page(Part::Groups, "Set offsets", &body))
}

fn form(id: &str, params: &Params) -> Markup {
    let targets = [
        ("earliest", "the earliest record"),
        ("latest", "the end"),
        ("offset", "an offset"),
        ("time", "a time"),
        ("by", "so many records on (or back, with a minus)"),
    ];
    let chosen = params.get("to").unwrap_or("earliest");
    html! {
        form.records method="get" action={ (ROOT) "/group/reset" } {
            input type="hidden" name="id" value=(id);
            label { "Topic " input type="text" name="topic" placeholder="all of them" value=[params.get("topic")]; }
            label { "Go on at "
                select name="to" data-from { @for (value, text) in targets { option value=(value) selected[value == chosen] { (text) } } } }
            label data-for="offset" { "Offset " input type="number" name="offset" min="0" value=[params.get("offset")]; }
            label data-for="time" { "Time (UTC) " input type="text" name="time" placeholder="2026-01-31 17:20" value=[params.get("time")]; }
            label data-for="by" { "Records " input type="number" name="by" value=[params.get("by")]; }
            span.buttons { button { "Preview" } }
        }
    }
}

/// What a target comes to in each partition for which the group has committed something.
async fn moves(visit: &Visit, id: &str, topic: Option<&str>, target: Target) -> Result<Vec<Move>, Refusal> {
    let admin = visit.client.admin();
    let lags = within(admin.groups().lag(id)).await?;
    let meant: Vec<PartitionLag> = lags
        .into_iter()
        .filter(|lag| topic.is_none_or(|topic| lag.topic.as_str() == topic))
        .collect();
    if meant.len() > PARTITIONS_MAX {
        return Err(Refusal::bad(format!(
            "At most {PARTITIONS_MAX} partitions are set at one time: name a topic."
        )));
    }
    let found = stream::iter(meant).map(|lag| {
        let admin = admin.clone();
        async move {
            let at = match target {
                Target::Time(time) => {
                    let spec = OffsetSpec::Timestamp(Timestamp::new(time));
                    admin.list_offset(lag.topic.as_str(), lag.partition, spec).await?
                }
                _ => None,
            };
            let to = target.offset(&lag, at);
            Ok::<_, Error>(to.map(|to| Move {
                topic: lag.topic.to_string(),
                partition: lag.partition.get(),
                from: lag.committed.map(Offset::get),
                to,
            }))
        }
    });
    let found: Vec<Option<Move>> = within(found.buffered(AT_ONCE).try_collect()).await?;
    Ok(found.into_iter().flatten().collect())
}

fn preview(id: &str, moves: &[Move]) -> Markup {
    let row = |change: &Move| {
        html! {
            th scope="row" { (change.topic) }
            td.n { (change.partition) }
            td.n { (change.from.map_or("—".to_owned(), count)) }
            td.n { (count(change.to)) }
            td { (change.means()) }
        }
    };
    let rows: Vec<Markup> = moves.iter().map(row).collect();
    let columns = [
        ("Topic", false),
        ("Partition", true),
        ("Now", true),
        ("Then", true),
        ("The group", false),
    ];
    let lines: Vec<String> = moves.iter().map(Move::line).collect();
    html! {
        h2 { "What would happen" }
        p.hint { "Nothing has happened yet." }
        (table("Offsets now and then", &columns, &rows))
        @if !moves.is_empty() {
            form method="post" action={ (ROOT) "/group/reset" } {
                input type="hidden" name="id" value=(id);
                input type="hidden" name="offsets" value=(lines.join("\n"));
                button.danger { "Set these offsets" }
            }
        }
    }
}

/// Does what was shown.
pub(super) async fn apply(_: Change, Shared(service): Shared<Service>, visit: Visit, body: Body) -> Reply {
    let whole = service.admission.read(body, &service.settings.limits).await?;
    let text =
        std::str::from_utf8(&whole.bytes).map_err(|error| Refusal::bad(format!("The form is not UTF-8: {error}.")))?;
    let params = Params::read(text)?;
    let id = params.need("id")?;
    let moves = read_moves(params.need("offsets")?)?;
    let groups = visit.client.admin().groups();
    let committed = within(groups.committed_offsets(id)).await?;
    if !moves.iter().all(|change| is_as_shown(change, &committed)) {
        let what = "The group has moved since this was shown, so nothing was set. Look at the preview again.";
        return Err(Refusal::new(StatusCode::CONFLICT, what));
    }
    let offsets = moves.iter().map(offset_of).collect::<Result<Vec<_>, Refusal>>()?;
    within(groups.reset_offsets(id, &offsets)).await?;
    // A form that is sent again by going back in the browser's history would find other offsets, and be refused.
    let to = format!("{}&done={}", address(id), encode(&moves.len().to_string()));
    let response: Response = (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
    Ok(response)
}

fn read_moves(text: &str) -> Result<Vec<Move>, Refusal> {
    let wrong =
        || Refusal::bad("The offsets in the form cannot be read. Go back to the preview, and send it from there.");
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > PARTITIONS_MAX {
        return Err(wrong());
    }
    lines
        .into_iter()
        .map(|line| Move::read(line).ok_or_else(wrong))
        .collect()
}

fn is_as_shown(change: &Move, committed: &[CommittedOffset]) -> bool {
    let found = committed
        .iter()
        .find(|known| known.topic.as_str() == change.topic && known.partition.get() == change.partition);
    found.map(|known| known.offset.get()) == change.from
}

fn offset_of(change: &Move) -> Result<CommittedOffset, Refusal> {
    let topic = TopicName::new(&change.topic).map_err(|error| Refusal::bad(format!("{error}.")))?;
    let partition = PartitionIndex::try_from(change.partition).map_err(|error| Refusal::bad(format!("{error}.")))?;
    Ok(CommittedOffset::new(topic, partition, Offset::new(change.to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_form_carries_is_what_was_shown() {
        for change in [
            Move {
                topic: "orders".to_owned(),
                partition: 3,
                from: Some(10),
                to: 4,
            },
            Move {
                topic: "a.b-c_d".to_owned(),
                partition: 0,
                from: None,
                to: 0,
            },
        ] {
            assert_eq!(Move::read(&change.line()), Some(change));
        }
        for bad in [
            "",
            "t",
            "t 0 1",
            "t 0 1 2 3",
            "t x 1 2",
            "t 0 1 -2",
            "t 0 1 18446744073709551615",
            "t  0 1 2",
        ] {
            assert_eq!(Move::read(bad), None, "{bad}");
        }
        assert!(read_moves(&"t 0 1 2\n".repeat(PARTITIONS_MAX + 1)).is_err());
    }

    #[test]
    fn what_has_moved_since_is_noticed() {
        let committed = vec![CommittedOffset::new(
            TopicName::new("t").unwrap(),
            PartitionIndex::new(0),
            Offset::new(5),
        )];
        let change = |from| Move {
            topic: "t".to_owned(),
            partition: 0,
            from,
            to: 1,
        };
        assert!(is_as_shown(&change(Some(5)), &committed));
        assert!(!is_as_shown(&change(Some(6)), &committed));
        assert!(!is_as_shown(&change(None), &committed));
        assert!(is_as_shown(&change(None), &[]));
    }

    #[test]
    fn the_preview_says_what_a_move_means() {
        let change = |from, to| Move {
            topic: "t".to_owned(),
            partition: 0,
            from,
            to,
        };
        assert_eq!(change(Some(10), 4).means(), "reads 6 again");
        assert_eq!(change(Some(4), 10_004).means(), "skips 10,000");
        assert_eq!(change(Some(4), 4).means(), "stays");
        let shown = preview("\"><script>", &[change(Some(10), 4)]).into_string();
        assert!(!shown.contains("<script"), "{shown}");
    }
}
