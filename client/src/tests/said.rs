//! What the client logs: a line when a connection is lost and one when there is another, however often it was tried meanwhile.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Level, Metadata, Subscriber};

use super::one_broker;
use crate::runtime::sync::Mutex;
use crate::{Record, Start};

const SECOND: Duration = Duration::from_secs(1);

/// Keeps what is said at `INFO` and above.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Lines {
    fn of(&self, level: Level) -> Vec<String> {
        let lines = self.0.lock();
        let of_level = lines.iter().filter(|(other, _)| *other == level);
        of_level.map(|(_, line)| line.clone()).collect()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_told_once_with_what_was_in_flight_and_so_is_its_return() {
    let lines = Lines::default();
    // While there is one listener only, tracing asks whichever test comes first to a line whether anybody listens, and remembers it.
    let _other = tracing::Dispatch::new(lines.clone());
    let _listening = tracing::subscriber::set_default(lines.clone());
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let producer = client.producer().build().await.unwrap();
    producer.send(Record::to("t").value("v")).await.unwrap().await.unwrap();
    let builder = client.consumer().topics(["t"]).start(Start::Latest);
    let mut consumer = builder.build().await.unwrap();
    assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none());
    assert_eq!((lines.of(Level::WARN), lines.of(Level::INFO)), (vec![], vec![]));

    broker.stop();
    assert!(consumer.recv_timeout(20 * SECOND).await.unwrap().is_none());
    let warnings = lines.of(Level::WARN);
    let of_core: Vec<_> = warnings
        .iter()
        .filter(|line| line.contains("address=broker:9001 "))
        .collect();
    let [lost] = of_core[..] else { panic!("{warnings:#?}") };
    assert!(
        lost.contains("a connection is lost") && lost.contains(r#"{"fetch": 1}"#),
        "{lost}"
    );
    assert!(lines.of(Level::INFO).is_empty());

    broker.listen();
    assert!(consumer.recv_timeout(20 * SECOND).await.unwrap().is_none());
    let back = lines.of(Level::INFO);
    let of_core: Vec<_> = back
        .iter()
        .filter(|line| line.contains("address=broker:9001 "))
        .collect();
    let [back] = of_core[..] else { panic!("{back:#?}") };
    assert!(back.contains("connected again"), "{back}");
    assert_eq!(lines.of(Level::WARN), warnings);
}
