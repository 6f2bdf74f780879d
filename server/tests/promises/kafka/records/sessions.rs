//! Sessions of fetches: what was said once need not be said again, and only what is new is told.

use std::time::{Duration, Instant};

use headwater_kafka::{
    ApiKey, Uuid,
    messages::{FetchRequest, FetchResponse, fetch_request::ForgottenTopic},
};

use super::{fetch, produce};
use crate::{
    kafka::wire::Wire,
    support::{Site, batch, run},
};

const WAIT: Duration = Duration::from_millis(300);

/// A request of a session, which waits a little for news.
fn within(
    topic: (&str, Uuid),
    (id, epoch): (i32, i32),
    partitions: &[(i32, i64)],
    forgotten: &[i32],
) -> FetchRequest<'static> {
    let mut request = fetch(topic, partitions);
    if partitions.is_empty() {
        request.topics.clear();
    }
    (request.session_id, request.session_epoch) = (id, epoch);
    (request.max_wait_ms, request.min_bytes) = (WAIT.as_millis() as i32, 1);
    if !forgotten.is_empty() {
        request.forgotten_topics_data = vec![ForgottenTopic {
            topic: topic.0.to_owned().into(),
            topic_id: topic.1,
            partitions: forgotten.to_vec(),
        }];
    }
    request
}

/// What the partitions of an answer are: index, error, records.
fn told(response: &FetchResponse<'_>) -> Vec<(i32, i16, bool)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let told = partitions.map(|found| {
        let has_records = !found.records.as_ref().unwrap().is_empty();
        (found.partition_index, found.error_code, has_records)
    });
    told.collect()
}

struct Session {
    wire: Wire,
    version: i16,
    topic: (&'static str, Uuid),
    id: i32,
    epoch: i32,
}

impl Session {
    async fn begin(wire: Wire, version: i16, topic: (&'static str, Uuid), partitions: &[(i32, i64)]) -> Session {
        let mut session = Session {
            wire,
            version,
            topic,
            id: 0,
            epoch: 0,
        };
        let begun = session.ask(partitions, &[]).await;
        assert!(begun.session_id > 0);
        assert_eq!(told(&begun).len(), partitions.len(), "C6: everything is told");
        session.id = begun.session_id;
        session
    }

    async fn ask(&mut self, partitions: &[(i32, i64)], forgotten: &[i32]) -> FetchResponse<'static> {
        let request = within(self.topic, (self.id, self.epoch), partitions, forgotten);
        self.epoch += 1;
        self.wire.ask(ApiKey::Fetch, self.version, &request).await
    }

    async fn goes_on(&mut self, partitions: &[(i32, i64)], forgotten: &[i32]) -> Vec<(i32, i16, bool)> {
        let response = self.ask(partitions, forgotten).await;
        assert_eq!((response.error_code, response.session_id), (0, self.id));
        told(&response)
    }

    /// The error of a request with this id and epoch, to which nothing is answered.
    async fn refused(&mut self, id: i32, epoch: i32, version: i16) -> i16 {
        let request = within(self.topic, (id, epoch), &[], &[]);
        let response: FetchResponse<'_> = self.wire.ask(ApiKey::Fetch, version, &request).await;
        assert_eq!((response.session_id, response.responses.len()), (0, 0));
        response.error_code
    }

    async fn produce(&mut self, partition: i32) {
        let produced = produce(self.topic, partition, 1, batch(&[b"a"]));
        assert_eq!(self.wire.produced(12, &produced).await.error_code, 0);
    }
}

/// C6, C7, C8: with topics by their ids and by their names, and partitions of cores that the connection does not belong to.
#[test]
fn a_session_is_told_what_is_new_of_the_partitions_that_it_has() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        for (version, name) in [(7, "by-name"), (18, "by-id")] {
            wire.create_topic(name, 3, &[]).await;
            let topic = (name, wire.topic(name).await.topic_id);
            let wire = Wire::of(&site).await;
            let mut session = Session::begin(wire, version, topic, &[(0, 0), (1, 0), (2, 0)]).await;
            let began = Instant::now();
            assert_eq!(session.goes_on(&[], &[]).await, [], "C7: no news");
            assert!(began.elapsed() >= WAIT);
            session.produce(1).await;
            for _ in 0..2 {
                assert_eq!(
                    session.goes_on(&[], &[]).await,
                    [(1, 0, true)],
                    "C7: it is not consumed yet"
                );
            }
            // C7: a fetch that waits is woken.
            let waiting = within(topic, (session.id, session.epoch), &[(1, 1)], &[]);
            let id = session
                .wire
                .send(
                    ApiKey::Fetch,
                    version,
                    &FetchRequest {
                        max_wait_ms: 60_000,
                        ..waiting
                    },
                )
                .await;
            session.epoch += 1;
            Wire::of(&site)
                .await
                .produced(12, &produce(topic, 2, 1, batch(&[b"a"])))
                .await;
            let woken: FetchResponse<'_> = session.wire.response(ApiKey::Fetch, version, id).await;
            assert_eq!(told(&woken), [(2, 0, true)]);
            // C8: what is forgotten is not told of, until it is named again; named and forgotten at once it is forgotten.
            assert_eq!(session.goes_on(&[], &[2]).await, []);
            assert_eq!(session.goes_on(&[(2, 0)], &[2, 9]).await, []);
            assert_eq!(session.goes_on(&[(2, 0)], &[]).await, [(2, 0, true)]);
            // C8: what fails is told each time.
            for offset in [Some((1, 7)), None] {
                let told = session.goes_on(offset.as_slice(), &[2]).await;
                assert_eq!(told, [(1, 1, false)], "out of range");
            }
            assert_eq!(
                session.goes_on(&[(1, 1), (9, 0)], &[]).await,
                [(1, 0, false), (9, 3, false)]
            );
            assert_eq!(session.goes_on(&[], &[]).await, [(9, 3, false)]);
            // A partition with records goes behind the others, so that all have their turn.
            session.goes_on(&[(0, 0), (1, 0), (2, 0)], &[9]).await;
            session.produce(0).await;
            let mut given = Vec::new();
            for _ in 0..3 {
                let mut request = within(topic, (session.id, session.epoch), &[], &[]);
                request.max_bytes = 1;
                session.epoch += 1;
                let response: FetchResponse<'_> = session.wire.ask(ApiKey::Fetch, version, &request).await;
                given.extend(
                    told(&response)
                        .into_iter()
                        .filter(|(.., has_records)| *has_records)
                        .map(|found| found.0),
                );
            }
            given.sort_unstable();
            assert_eq!(given, [0, 1, 2]);
            // One that has nothing left ends.
            let ended = session.ask(&[], &[0, 1, 2]).await;
            assert_eq!((ended.error_code, ended.session_id), (0, 0));
            assert_eq!(session.refused(session.id, session.epoch, version).await, 70);
        }
        broker.stop();
    });
}

/// C6: who says another session or epoch than there is.
#[test]
fn a_session_goes_on_only_where_it_is() {
    run(async {
        let site = Site::new().set("cores.count", "1");
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        wire.create_topic("c", 1, &[]).await;
        let topic = ("c", wire.topic("c").await.topic_id);
        let mut session = Session::begin(wire, 18, topic, &[(0, 0)]).await;
        session.epoch = 1;
        let id = session.id;
        assert_eq!(session.refused(0, 1, 18).await, 70);
        assert_eq!(session.refused(id ^ 1, 1, 18).await, 70);
        for epoch in [2, 7, -2] {
            assert_eq!(session.refused(id, epoch, 18).await, 71, "epoch {epoch}");
        }
        assert_eq!(session.refused(id, 1, 12).await, 106, "topics by their names");
        assert_eq!(session.goes_on(&[], &[]).await, [], "it is still there");
        assert_eq!(session.refused(id, 1, 18).await, 71, "once each");
        // Another connection goes on with it, and ends it.
        session.wire = Wire::of(&site).await;
        assert_eq!(session.goes_on(&[], &[]).await, []);
        let last = within(topic, (id, -1), &[(0, 0)], &[]);
        let last: FetchResponse<'_> = session.wire.ask(ApiKey::Fetch, 18, &last).await;
        assert_eq!((last.error_code, last.session_id, told(&last).len()), (0, 0, 1));
        assert_eq!(session.refused(id, session.epoch, 18).await, 70);
        // One that is begun anew is another, and so is one that has nothing yet.
        let again = within(topic, (id, 0), &[], &[]);
        let began = Instant::now();
        let again: FetchResponse<'_> = session.wire.ask(ApiKey::Fetch, 18, &again).await;
        assert!(began.elapsed() < WAIT);
        assert!(again.error_code == 0 && again.session_id > 0 && again.responses.is_empty());
        broker.stop();
    });
}
