//! Records as they come, as Server-Sent Events: each event has the records of a moment, as one line of JSON.
//!
//! Whoever watches a topic that is faster than a page misses the middle, and is told how much. A stream ends by itself after a while, as
//! somebody may have left a page open for the night; it is one of `http.streams_max`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream;
use headwater_client::{Consumer, Error, OffsetReset, Start};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};

use super::partitions;
use super::read::small_consumer;
use super::shown::{Manner, PREVIEW, Shown};
use crate::console::format::time;
use crate::console::page::{Reply, chain};
use crate::console::visit::{Visit, within};
use crate::service::Service;

/// Records in an event, and the pause after one.
const RECORDS_MAX: usize = 50;
const PAUSE: Duration = Duration::from_millis(250);
/// Whoever is further behind is taken to the end.
const BEHIND_MAX: u64 = 2_000;
/// So long a stream lasts.
const WATCH_MAX: Duration = Duration::from_mins(15);
/// A line that means nothing, so that a connection without records is not taken for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

struct Tail {
    consumer: Consumer,
    topic: String,
    manner: Manner,
    until: Instant,
    service: Service,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

pub(in crate::console) async fn show(Path(topic): Path<String>, visit: Visit) -> Reply {
    let (meant, _) = partitions(&visit, &topic, super::partition(&visit.params)?).await?;
    let permit = visit.console.admission.stream()?;
    let builder = small_consumer(&visit.client).assign(&topic, meant).start(Start::Latest);
    let consumer = within(Box::pin(builder.offset_reset(OffsetReset::Latest).build())).await?;
    let tail = Tail {
        consumer,
        topic,
        manner: Manner::named(visit.params.get("as")),
        until: Instant::now() + WATCH_MAX,
        service: visit.console.clone(),
        is_over: false,
        _permit: permit,
    };
    // The script hears at once that it may wait.
    let begin = stream::iter([Ok::<_, Infallible>(event("begin", &json!({})))]);
    let events = stream::unfold(tail, |mut tail| async move {
        let event = tail.next().await?;
        Some((Ok(event), tail))
    });
    let events = futures::StreamExt::chain(begin, events);
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

impl Tail {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        let service = self.service.clone();
        let come = tokio::select! {
            come = timeout_at(self.until, self.records()) => come,
            () = service.stopping() => return None,
        };
        Some(match come {
            Ok(Ok(records)) => {
                sleep(PAUSE).await;
                records
            }
            Ok(Err(error)) => self.end(&format!("It went no further: {}.", chain(&error))),
            Err(_late) => self.end("This has been watched for a quarter of an hour."),
        })
    }

    fn end(&mut self, why: &str) -> Event {
        self.is_over = true;
        event("end", &json!({ "why": why }))
    }

    /// The records that there are, after the first of them has come.
    async fn records(&mut self) -> Result<Event, Error> {
        let batch = self.consumer.recv_batch().await?;
        let mut shown = Vec::new();
        let mut left = 0_u64;
        for record in &batch {
            let record = record?;
            if shown.len() < RECORDS_MAX {
                let time = time(record.timestamp.get());
                shown.push(Shown::of(&batch, &record, PREVIEW).json(self.manner, &time));
            } else {
                left += 1;
            }
        }
        left += self.catch_up().await?;
        Ok(event("records", &json!({ "records": shown, "left": left })))
    }

    /// Goes to the end where that is far away, and says how many records were passed over.
    async fn catch_up(&mut self) -> Result<u64, Error> {
        let positions = self.consumer.positions();
        let behind: u64 = positions
            .iter()
            .filter_map(headwater_client::PartitionPosition::lag)
            .sum();
        if behind <= BEHIND_MAX {
            return Ok(0);
        }
        for position in positions {
            self.consumer
                .seek(&self.topic, position.partition, Start::Latest)
                .await?;
        }
        Ok(behind)
    }
}

/// One line of JSON, so that nothing in it can be taken for the end of an event.
fn event(name: &'static str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
