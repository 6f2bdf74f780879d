//! Sessions of fetches (KIP-227): what a client has said of its partitions it need not say again, and it is told only what is new.
//!
//! They belong to the core, which is a node to clients: any of its connections may go on with one, as some clients end theirs from
//! another connection than they have used it on. An id is told from those of other cores, so that a request which comes to one of them, by
//! the port that all share, finds no session rather than somebody else's, and the client begins anew. What they hold is bounded, and
//! they give way to one another by Kafka's rules.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::{Duration, Instant},
};

use headwater_kafka::{
    TopicRef, Uuid,
    fetch::{Answer, Part, Request},
    messages::{fetch_request::FetchPartition, fetch_response::EpochEndOffset},
};
use headwater_protocol::{error::ErrorCode, id::CoreId};

use crate::{machine, model::bounds::ITEMS_MAX};

/// Sessions of one core, as of a broker of Kafka (`max.incremental.fetch.session.cache.slots`).
const SESSIONS_MAX: usize = 1000;

/// Partitions of them all: as many as one request may name. Each takes some 250 bytes, and the name of its topic in old versions.
const PARTITIONS_MAX: usize = ITEMS_MAX;

/// One that nobody has used for so long gives way to any other, and one that is as old to any that is larger
/// (`min.incremental.fetch.session.eviction.ms`).
const AGE_MIN: Duration = Duration::from_mins(2);

/// The epochs of a request that names all its partitions: it begins a session, or wants none.
const INITIAL: i32 = 0;
const FINAL: i32 = -1;

/// What a fetch belongs to.
#[derive(Debug)]
pub(in crate::session) enum Context {
    /// No session.
    Alone,
    /// One that begins when it is answered.
    New,
    /// One that goes on, and is in this epoch while nothing else goes on with it.
    Going(Rc<Session>, i32),
}

/// The sessions of one core.
#[derive(Debug)]
pub(in crate::session) struct FetchSessions {
    core: CoreId,
    cores: usize,
    by_id: RefCell<BTreeMap<i32, Rc<Session>>>,
    /// Partitions of all of them, and of those that are gone but for a fetch that is not answered yet.
    partitions: Rc<Cell<usize>>,
}

impl FetchSessions {
    /// None yet.
    pub(in crate::session) fn new(core: CoreId, cores: usize) -> FetchSessions {
        FetchSessions {
            core,
            cores,
            by_id: RefCell::default(),
            partitions: Rc::default(),
        }
    }

    /// What a request belongs to; the session that it goes on with is as the request wants it from then on. `names_ids`: it names topics
    /// by their ids.
    pub(in crate::session) fn enter(
        &self,
        request: &Request<'_>,
        names_ids: bool,
        now: Instant,
    ) -> Result<Context, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if [INITIAL, FINAL].contains(&epoch) {
            // Of a session that it names it wants nothing more.
            self.by_id.borrow_mut().remove(&id);
            return Ok(if epoch == FINAL { Context::Alone } else { Context::New });
        }
        let session = self.by_id.borrow().get(&id).cloned();
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch.get() != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.names_ids != names_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.update(request);
        if session.len() == 0 {
            self.by_id.borrow_mut().remove(&id);
            return Ok(Context::Alone);
        }
        if self.partitions.get() > PARTITIONS_MAX {
            // The client begins anew, and has no session if there is no room for it.
            self.by_id.borrow_mut().remove(&id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        let next = next_epoch(epoch);
        session.epoch.set(next);
        session.used.set(now);
        Ok(Context::Going(session, next))
    }

    /// Begins a session with what is told of these partitions. Returns its id, or 0 if there is no room for it.
    pub(in crate::session) fn begin(
        &self,
        parts: &[Part<'_>],
        answers: &[Answer<'_>],
        names_ids: bool,
        now: Instant,
    ) -> i32 {
        if !self.make_room(parts.len(), now) {
            return 0;
        }
        let mut by_id = self.by_id.borrow_mut();
        let id = loop {
            let id = self.own(machine::random());
            if id != 0 && !by_id.contains_key(&id) {
                break id;
            }
        };
        let session = Session {
            id,
            names_ids,
            epoch: Cell::new(next_epoch(INITIAL)),
            begun: now,
            used: Cell::new(now),
            held: RefCell::default(),
            partitions: Rc::clone(&self.partitions),
        };
        let mut topics = Topics::default();
        let mut held = session.held.borrow_mut();
        for (part, answer) in parts.iter().zip(answers) {
            let place = held.put(topics.of(part.topic), &part.partition);
            if let Some(held) = held.in_order.get_mut(&place) {
                held.told(answer);
            }
        }
        let count = held.in_order.len();
        drop(held);
        self.partitions.set(self.partitions.get() + count);
        by_id.insert(id, Rc::new(session));
        id
    }

    /// A number that only this core makes an id of.
    fn own(&self, drawn: u32) -> i32 {
        let (core, cores) = (u32::from(self.core.get()), self.cores as u32);
        let below = drawn >> 2;
        (below - below % cores + core).cast_signed()
    }

    fn make_room(&self, partitions: usize, now: Instant) -> bool {
        let is_full = || {
            self.by_id.borrow().len() >= SESSIONS_MAX
                || self.partitions.get().saturating_add(partitions) > PARTITIONS_MAX
        };
        while is_full() {
            let Some(id) = self.gives_way(partitions, now) else {
                return false;
            };
            self.by_id.borrow_mut().remove(&id);
        }
        true
    }

    /// A session that gives way to one of so many partitions.
    fn gives_way(&self, partitions: usize, now: Instant) -> Option<i32> {
        let by_id = self.by_id.borrow();
        let is_old = |since: Instant| now.saturating_duration_since(since) > AGE_MIN;
        let unused = by_id.values().min_by_key(|session| session.used.get());
        if let Some(unused) = unused.filter(|unused| is_old(unused.used.get())) {
            return Some(unused.id);
        }
        let old = by_id.values().filter(|session| is_old(session.begun));
        let smallest = old.min_by_key(|session| (session.len(), session.id))?;
        (smallest.len() < partitions).then_some(smallest.id)
    }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// A topic as a session's requests name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Topic {
    Name(Rc<str>),
    Id(Uuid),
}

/// Makes them, the same name once for partitions that follow one another.
#[derive(Default)]
struct Topics(Option<Topic>);

impl Topics {
    fn of(&mut self, named: TopicRef<'_>) -> Topic {
        match (&self.0, named) {
            (_, TopicRef::Id(id)) => Topic::Id(id),
            (Some(Topic::Name(last)), TopicRef::Name(name)) if **last == *name => Topic::Name(Rc::clone(last)),
            (_, TopicRef::Name(name)) => {
                let topic = Topic::Name(name.into());
                self.0 = Some(topic.clone());
                topic
            }
        }
    }
}

/// A partition of a session: what is wanted of it, and what was told of it last.
#[derive(Debug, Clone)]
pub(in crate::session) struct Held {
    topic: Topic,
    wanted: FetchPartition,
    high_watermark: i64,
    log_start_offset: i64,
}

impl Held {
    /// As a request would name it.
    pub(in crate::session) fn part(&self) -> Part<'_> {
        Part {
            topic: match &self.topic {
                Topic::Name(name) => TopicRef::Name(name),
                Topic::Id(id) => TopicRef::Id(*id),
            },
            partition: self.wanted.clone(),
        }
    }

    fn told(&mut self, answer: &Answer<'_>) {
        // What has failed is told again once it does not.
        self.high_watermark = if answer.error_code == 0 {
            answer.high_watermark
        } else {
            -1
        };
        self.log_start_offset = answer.log_start_offset;
    }

    fn is_news(&self, answer: &Answer<'_>) -> bool {
        answer.records_len > 0
            || answer.error_code != 0
            || answer.preferred_read_replica != -1
            || answer.diverging_epoch != EpochEndOffset::default()
            || answer.high_watermark != self.high_watermark
            || answer.log_start_offset != self.log_start_offset
    }
}

/// The partitions of a session, in the order in which they are looked at.
#[derive(Debug, Default)]
struct Partitions {
    in_order: BTreeMap<u64, Held>,
    places: HashMap<(Topic, i32), u64>,
    next_place: u64,
}

impl Partitions {
    /// Puts it at the end, or where it is already.
    fn put(&mut self, topic: Topic, wanted: &FetchPartition) -> u64 {
        let place = *self.places.entry((topic.clone(), wanted.partition)).or_insert_with(|| {
            self.next_place += 1;
            self.next_place
        });
        let held = self.in_order.entry(place).or_insert_with(|| Held {
            topic,
            wanted: FetchPartition::default(),
            high_watermark: -1,
            log_start_offset: -1,
        });
        held.wanted = wanted.clone();
        place
    }

    fn forget(&mut self, topic: Topic, index: i32) {
        if let Some(place) = self.places.remove(&(topic, index)) {
            self.in_order.remove(&place);
        }
    }

    /// The others come first from now on.
    fn put_last(&mut self, place: u64) {
        if let Some(held) = self.in_order.remove(&place) {
            self.next_place += 1;
            let key = (held.topic.clone(), held.wanted.partition);
            self.places.insert(key, self.next_place);
            self.in_order.insert(self.next_place, held);
        }
    }
}

/// One session.
#[derive(Debug)]
pub(in crate::session) struct Session {
    id: i32,
    names_ids: bool,
    /// That of the next request.
    epoch: Cell<i32>,
    begun: Instant,
    used: Cell<Instant>,
    held: RefCell<Partitions>,
    /// Of all sessions.
    partitions: Rc<Cell<usize>>,
}

impl Session {
    /// Its number.
    pub(in crate::session) fn id(&self) -> i32 {
        self.id
    }

    /// Its partitions.
    pub(in crate::session) fn len(&self) -> usize {
        self.held.borrow().in_order.len()
    }

    /// What is wanted of its partitions now, in the order in which they are looked at.
    pub(in crate::session) fn wanted(&self) -> Vec<Held> {
        self.held.borrow().in_order.values().cloned().collect()
    }

    /// Adds what the request names, or wants it otherwise than before; what it forgets is gone, even if it names it as well.
    fn update(&self, request: &Request<'_>) {
        let mut held = self.held.borrow_mut();
        let before = held.in_order.len();
        let mut topics = Topics::default();
        for part in &request.partitions {
            held.put(topics.of(part.topic), &part.partition);
        }
        for (topic, index) in &request.forgotten {
            held.forget(topics.of(*topic), *index);
        }
        let after = held.in_order.len();
        self.partitions.set(self.partitions.get() + after - before);
    }

    /// Which of these answers, which are all of its partitions, are news to the client; they are told with this. An error if somebody has
    /// gone on with the session since the request that was of this epoch.
    pub(in crate::session) fn tell(
        &self,
        epoch: i32,
        wanted: &[Held],
        answers: &[Answer<'_>],
    ) -> Result<Vec<bool>, ErrorCode> {
        if self.epoch.get() != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        let mut partitions = self.held.borrow_mut();
        let tell = |(wanted, answer): (&Held, &Answer<'_>)| {
            let key = (wanted.topic.clone(), wanted.wanted.partition);
            let place = partitions.places.get(&key).copied();
            let Some((place, held)) = place.and_then(|place| Some((place, partitions.in_order.get_mut(&place)?)))
            else {
                return true;
            };
            let is_news = held.is_news(answer);
            held.told(answer);
            if answer.records_len > 0 {
                partitions.put_last(place);
            }
            is_news
        };
        Ok(wanted.iter().zip(answers).map(tell).collect())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.partitions.set(self.partitions.get() - self.len());
    }
}

#[cfg(test)]
mod tests {
    use headwater_kafka::messages::fetch_request::ReplicaState;

    use super::*;

    fn part(index: i32) -> Part<'static> {
        Part {
            topic: TopicRef::Id([1; 16]),
            partition: FetchPartition {
                partition: index,
                ..FetchPartition::default()
            },
        }
    }

    fn request(id: i32, epoch: i32, parts: std::ops::Range<i32>) -> Request<'static> {
        Request {
            replica: ReplicaState::default(),
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 0,
            isolation_level: 0,
            session_id: id,
            session_epoch: epoch,
            cluster_id: None,
            rack: "",
            partitions: parts.map(part).collect(),
            forgotten: Vec::new(),
        }
    }

    fn begin(sessions: &FetchSessions, parts: std::ops::Range<i32>, now: Instant) -> i32 {
        let parts: Vec<Part<'_>> = parts.map(part).collect();
        let answer = |part: &Part<'static>| Answer::new(part.topic, part.partition.partition, 0);
        sessions.begin(&parts, &parts.iter().map(answer).collect::<Vec<_>>(), true, now)
    }

    #[test]
    fn what_gives_way_is_what_nobody_uses_and_then_what_is_old_and_smaller() {
        let sessions = FetchSessions::new(CoreId::new(2), 3);
        let began = machine::now();
        let first = begin(&sessions, 0..2, began);
        assert_eq!(first % 3, 2, "it is told from those of other cores");
        for _ in 1..SESSIONS_MAX {
            assert_ne!(begin(&sessions, 0..3, began), 0);
        }
        let soon = began + AGE_MIN;
        assert_eq!(begin(&sessions, 0..9, soon), 0, "all are in use, and young");
        let later = soon + Duration::from_secs(1);
        let ids: Vec<i32> = sessions.by_id.borrow().keys().copied().collect();
        for id in ids {
            assert!(sessions.enter(&request(id, 1, 0..0), true, later).is_ok());
        }
        assert_eq!(begin(&sessions, 0..2, later), 0, "none is smaller");
        assert_ne!(begin(&sessions, 0..3, later), 0);
        let known = |id, epoch, now| sessions.enter(&request(id, epoch, 0..0), true, now).is_ok();
        assert!(!known(first, 2, later), "it was the smallest");
        let much_later = later + AGE_MIN + Duration::from_secs(1);
        assert_ne!(begin(&sessions, 0..1, much_later), 0, "nobody has used the others");
        assert_eq!(sessions.by_id.borrow().len(), SESSIONS_MAX);
    }

    #[test]
    fn their_partitions_are_bounded_and_given_back() {
        let sessions = FetchSessions::new(CoreId::new(0), 1);
        let now = machine::now();
        let max = PARTITIONS_MAX as i32;
        let large = begin(&sessions, 0..max - 1, now);
        assert_ne!(large, 0);
        let small = begin(&sessions, 0..1, now);
        assert_ne!(small, 0);
        assert_eq!(begin(&sessions, 0..1, now), 0);
        let grown = sessions.enter(&request(small, 1, 1..3), true, now);
        assert_eq!(grown.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(sessions.partitions.get(), PARTITIONS_MAX - 1);
        // What is not answered yet still holds its partitions.
        let going = sessions.enter(&request(large, 1, 0..0), true, now).unwrap();
        assert!(matches!(
            sessions.enter(&request(large, FINAL, 0..0), true, now),
            Ok(Context::Alone)
        ));
        assert_eq!(sessions.partitions.get(), PARTITIONS_MAX - 1);
        drop(going);
        assert_eq!(sessions.partitions.get(), 0);
    }
}
