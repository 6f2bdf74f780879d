//! The record browser: by offset, by time, by key, and as records come.

mod read;
mod shown;
mod tail;

use axum::extract::Path;
use headwater_client::PartitionIndex;
use maud::{Markup, html};

use self::read::{Begin, Found, PARTITIONS_MAX, Search, Span, find, one};
use self::shown::{Manner, Piece, Shown, WHOLE};
use super::format::{bytes, count, parse_time, time};
use super::page::{Part, ROOT, Refusal, Reply, page, topic_link};
use super::params::{Params, encode};
use super::visit::{Visit, within};

pub(super) use self::tail::show as tail;

/// Records on a page, if nobody says otherwise, and at most.
const LIMIT: usize = 25;
const LIMIT_MAX: usize = 100;
/// Bytes of a key or a text that is looked for.
const WANTED_MAX: usize = 1 << 10;

/// What the form asks for.
struct Asked {
    partition: Option<PartitionIndex>,
    from: Begin,
    key: Option<String>,
    text: Option<String>,
    manner: Manner,
    limit: usize,
}

impl Asked {
    fn read(params: &Params) -> Result<Asked, Refusal> {
        let from = match params.get("from") {
            None | Some("newest") => Begin::Newest,
            Some("earliest") => Begin::Earliest,
            Some("offset") => Begin::Offset(params.number("offset")?.unwrap_or(0)),
            Some("time") => {
                let wrong = || {
                    Refusal::bad(
                        "The time cannot be read: write it like 2026-01-31 17:20 (UTC), or as milliseconds since 1970.",
                    )
                };
                Begin::Time(params.get("time").and_then(parse_time).ok_or_else(wrong)?)
            }
            Some(_) => {
                return Err(Refusal::bad(
                    "Records are shown from the newest, the earliest, an offset or a time.",
                ));
            }
        };
        let wanted = |name: &str| match params.get(name) {
            Some(text) if text.len() > WANTED_MAX => {
                Err(Refusal::bad(format!("What is looked for may have {WANTED_MAX} bytes.")))
            }
            text => Ok(text.map(str::to_owned)),
        };
        Ok(Asked {
            partition: partition(params)?,
            from,
            key: wanted("key")?,
            text: wanted("has")?,
            manner: Manner::named(params.get("as")),
            limit: params.number("limit")?.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
        })
    }
}

/// The partition in an address.
fn partition(params: &Params) -> Result<Option<PartitionIndex>, Refusal> {
    let wrong = |_negative| Refusal::bad("There is no partition below 0.");
    let number: Option<i32> = params.number("partition")?;
    number.map(PartitionIndex::try_from).transpose().map_err(wrong)
}

/// The partitions that are meant: this one, or all, if they are not too many.
async fn partitions(
    visit: &Visit,
    topic: &str,
    one: Option<PartitionIndex>,
) -> Result<(Vec<PartitionIndex>, usize), Refusal> {
    let admin = visit.client.admin();
    let topics = within(admin.topics()).await?;
    let found = topics.iter().find(|known| known.name.as_str() == topic);
    let all = found
        .ok_or_else(|| Refusal::not_found("There is no such topic, or you may not see it."))?
        .partitions;
    let meant = match one {
        Some(one) if one.as_usize() < all => vec![one],
        Some(one) => {
            return Err(Refusal::not_found(format!(
                "There is no partition {one}: the topic has {all}."
            )));
        }
        None => (0..all.min(PARTITIONS_MAX) as i32).map(PartitionIndex::new).collect(),
    };
    Ok((meant, all))
}

pub(super) async fn show(Path(topic): Path<String>, visit: Visit) -> Reply {
    let asked = Asked::read(&visit.params)?;
    let (meant, all) = partitions(&visit, &topic, asked.partition).await?;
    let is_tail = visit.params.get("tail").is_some();
    let search = Search {
        topic: topic.clone(),
        partitions: meant,
        from: asked.from,
        key: asked.key.clone(),
        text: asked.text.clone(),
        limit: asked.limit,
    };
    let found = if is_tail {
        Found::default()
    } else {
        Box::pin(find(&visit.client, &search)).await?
    };
    let body = html! {
        h1 { "Records of " (topic_link(&topic)) }
        (form(&topic, &asked, all, is_tail))
        @if asked.partition.is_none() && all > PARTITIONS_MAX {
            p.hint { "Of " (all) " partitions the first " (PARTITIONS_MAX) " are shown. Choose one to see another." }
        }
        @if is_tail {
            (tail_frame(&topic, &asked))
        } @else {
            (summary(&found))
            (list(&topic, &found.records, asked.manner))
            @if let [span] = found.spans[..] { (around(&topic, &asked, &found, span)) }
        }
    };
    Ok(page(Part::Topics, &format!("Records of {topic}"), &body))
}

fn form(topic: &str, asked: &Asked, partitions: usize, is_tail: bool) -> Markup {
    let path = format!("{ROOT}/topics/{}/records", encode(topic));
    let froms = [
        ("newest", "the newest"),
        ("earliest", "the earliest"),
        ("offset", "an offset"),
        ("time", "a time"),
    ];
    let (from, offset, at) = match asked.from {
        Begin::Newest => ("newest", None, None),
        Begin::Earliest => ("earliest", None, None),
        Begin::Offset(offset) => ("offset", Some(offset), None),
        Begin::Time(at) => ("time", None, Some(time(at))),
    };
    html! {
        form.records method="get" action=(path) {
            label { "Partition "
                input type="number" name="partition" min="0" max=(partitions.saturating_sub(1)) placeholder="all"
                    value=[asked.partition.map(PartitionIndex::get)]; }
            label { "From "
                select name="from" data-from {
                    @for (value, text) in froms { option value=(value) selected[value == from] { (text) } }
                } }
            label data-for="offset" { "Offset " input type="number" name="offset" min="0" value=[offset]; }
            label data-for="time" { "Time (UTC) " input type="text" name="time" placeholder="2026-01-31 17:20" value=[at]; }
            label { "Key is " input type="search" name="key" value=[asked.key.as_deref()] data-find; }
            label { "Value contains " input type="search" name="has" value=[asked.text.as_deref()]; }
            label { "Show "
                select name="as" {
                    @for (value, text, manner) in Manner::ALL { option value=(value) selected[manner == asked.manner] { (text) } }
                } }
            label { "Records " input type="number" name="limit" min="1" max=(LIMIT_MAX) value=(asked.limit); }
            span.buttons {
                button { "Show" }
                button name="tail" value="1" aria-pressed=(is_tail) { "Watch what comes" }
            }
        }
    }
}

/// What was looked at, and what was not.
fn summary(found: &Found) -> Markup {
    let (first, end) = (
        found.spans.iter().map(|span| span.first).sum::<u64>(),
        found.spans.iter().map(|span| span.end).sum::<u64>(),
    );
    html! {
        p.hint role="status" {
            (count(found.records.len() as u64)) " shown, " (count(found.looked_at)) " looked at, "
            (count(end.saturating_sub(first))) " there."
            @if let Some(why) = &found.stopped { " " strong { (why) } }
        }
    }
}

/// Links to what lies before and behind.
fn around(topic: &str, asked: &Asked, found: &Found, span: Span) -> Markup {
    let link = |offset: u64, text: &str| {
        let mut path = format!(
            "{ROOT}/topics/{}/records?partition={}&from=offset&offset={offset}",
            encode(topic),
            span.partition
        );
        for (name, value) in [("key", &asked.key), ("has", &asked.text)] {
            if let Some(value) = value {
                path = format!("{path}&{name}={}", encode(value));
            }
        }
        path = format!("{path}&as={}&limit={}", asked.manner.name(), asked.limit);
        html! { a href=(path) { (text) } }
    };
    let is_picky = asked.key.is_some() || asked.text.is_some();
    let oldest = found.records.iter().map(|record| record.offset).min();
    let older = oldest.filter(|oldest| !is_picky && *oldest > span.first);
    html! {
        nav.pager aria-label="Earlier and later records" {
            @if let Some(oldest) = older { (link(oldest.saturating_sub(asked.limit as u64).max(span.first), "Earlier")) }
            span { "Partition " (span.partition) ": offsets " (count(span.first)) " to " (count(span.end)) }
            @if span.next < span.end { (link(span.next, if is_picky { "Look further" } else { "Later" })) }
        }
    }
}

fn list(topic: &str, records: &[Shown], manner: Manner) -> Markup {
    html! {
        ol.list { @for record in records { li { (one_of(topic, record, manner)) } } }
        @if records.is_empty() { p.none { "No records." } }
    }
}

/// A record in a list; the script makes the same for those that come.
fn one_of(topic: &str, record: &Shown, manner: Manner) -> Markup {
    let (partition, offset) = (record.partition, record.offset);
    let path = format!(
        "{ROOT}/topics/{}/record?partition={partition}&offset={offset}&as={}",
        encode(topic),
        manner.name()
    );
    html! {
        div.where {
            a href=(path) { (partition) " : " (count(offset)) }
            " " time datetime=[iso(record.timestamp)] { (time(record.timestamp)) }
        }
        div.what {
            div.key { span.label { "key" } " " (piece(record.key.as_ref(), manner)) }
            (piece(record.value.as_ref(), manner))
            @if !record.headers.is_empty() { (headers(record, manner)) }
        }
    }
}

fn iso(timestamp: i64) -> Option<String> {
    (timestamp >= 0).then(|| format!("{}Z", time(timestamp).replace(' ', "T")))
}

fn piece(piece: Option<&Piece>, manner: Manner) -> Markup {
    let Some(piece) = piece else {
        return html! { em.null { "null" } };
    };
    let (text, kind) = piece.text(manner);
    html! {
        pre.(kind) dir="auto" tabindex="0" { (text) }
        @if piece.is_cut() { small.cut { "the first part of " (bytes(piece.len as u64)) } }
        @else if piece.len == 0 { small.cut { "empty" } }
    }
}

fn headers(record: &Shown, manner: Manner) -> Markup {
    html! {
        dl.headers {
            @for (name, value) in &record.headers { div { dt { bdi { (name) } } dd { (piece(value.as_ref(), manner)) } } }
        }
        @if record.headers_left > 0 { small.cut { (record.headers_left) " more headers" } }
    }
}

/// Where the script puts records as they come.
fn tail_frame(topic: &str, asked: &Asked) -> Markup {
    let mut path = format!("{ROOT}/topics/{}/tail?as={}", encode(topic), asked.manner.name());
    if let Some(partition) = asked.partition {
        path = format!("{path}&partition={partition}");
    }
    html! {
        p.hint role="status" data-tail-state { "Watching needs the script of this page." }
        p.actions { button type="button" data-tail-stop hidden { "Stop" } }
        ol.list data-tail=(path) data-topic=(topic) {}
    }
}

/// One record with all of its value that a page bears.
pub(super) async fn single(Path(topic): Path<String>, visit: Visit) -> Reply {
    let params = &visit.params;
    let missing = || Refusal::bad("The address lacks a partition and an offset.");
    let (at, offset) = (
        partition(params)?.ok_or_else(missing)?,
        params.number("offset")?.ok_or_else(missing)?,
    );
    partitions(&visit, &topic, Some(at)).await?;
    let manner = Manner::named(params.get("as"));
    let record = Box::pin(one(&visit.client, &topic, at, offset, WHOLE)).await?;
    let gone = || {
        Refusal::not_found(format!(
            "There is no record at offset {offset} of partition {at}: it is not there yet, or not any more."
        ))
    };
    let record = record.ok_or_else(gone)?;
    let path = format!("{ROOT}/topics/{}/record?partition={at}&offset=", encode(&topic));
    let body = html! {
        h1 { "Record " (count(offset)) " of partition " (at) " of " (topic_link(&topic)) }
        p.actions {
            @for (name, text, other) in Manner::ALL {
                a href={ (path) (offset) "&as=" (name) } aria-current=[(other == manner).then_some("true")] { (text) } " "
            }
        }
        div.single { (one_of(&topic, &record, manner)) }
        nav.pager aria-label="Earlier and later records" {
            @if offset > 0 { a href={ (path) (offset - 1) "&as=" (manner.name()) } rel="prev" { "Earlier" } }
            span { a href={ (ROOT) "/topics/" (encode(&topic)) "/records?partition=" (at) "&from=offset&offset=" (offset) } { "In the list" } }
            a href={ (path) (offset + 1) "&as=" (manner.name()) } rel="next" { "Later" }
        }
    };
    Ok(page(Part::Topics, &format!("Record {offset} of {topic}"), &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</pre><script>alert(1)</script><img src=x onerror='alert(2)'>\u{202e}\"";

    #[test]
    fn keys_values_and_headers_are_text_whatever_is_in_them() {
        let piece = || Some(Piece::of(HOSTILE.as_bytes(), WHOLE));
        let record = Shown {
            partition: 0,
            offset: 7,
            timestamp: 1_700_000_000_000,
            key: piece(),
            value: piece(),
            headers: vec![(HOSTILE.to_owned(), piece())],
            headers_left: 0,
        };
        for (.., manner) in Manner::ALL {
            let shown = list("t", std::slice::from_ref(&record), manner).into_string();
            assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
            assert_eq!(shown.matches("</pre>").count(), 3, "{shown}");
        }
    }

    #[test]
    fn what_is_typed_into_the_form_comes_back_as_text() {
        let asked = Asked::read(&Params::read(&format!("key={0}&has={0}&as={0}", encode(HOSTILE))).unwrap()).unwrap();
        let shown = form("t", &asked, 3, false).into_string();
        assert!(
            !shown.contains("<script") && shown.contains("&lt;script&gt;"),
            "{shown}"
        );
        assert!(
            shown.contains("\u{202e}\\&quot;") || shown.contains("&quot;"),
            "{shown}"
        );
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        for bad in [
            "from=never",
            "from=time&time=soon",
            "partition=-1",
            "limit=many",
            "offset=x&from=offset",
        ] {
            assert!(Asked::read(&Params::read(bad).unwrap()).is_err(), "{bad}");
        }
        let long = format!("key={}", "k".repeat(WANTED_MAX + 1));
        assert!(Asked::read(&Params::read(&long).unwrap()).is_err());
        assert_eq!(
            Asked::read(&Params::read("limit=100000").unwrap()).unwrap().limit,
            LIMIT_MAX
        );
    }
}
