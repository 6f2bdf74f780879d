//! Requests that are repeated with the same `Idempotency-Key`: done once, and answered as before.
//!
//! What is kept is kept in memory, by the broker that was asked: bounded by number, bytes and time. An answer is not kept that leaves
//! open whether something was done, so such a request is done again when it is repeated.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use headwater_client::ErrorCode;
use tokio::time::Instant;

use crate::{problem::Problem, settings::Limits};

/// The header by which a caller says that a request is the same as before.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

const KEY_LEN_MAX: usize = 255;

/// Answers have this part of the memory for bodies.
const MEMORY_PART: usize = 4;

/// An answer as it is given, now and again.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) body: Bytes,
    /// Whether it will not be another one if the request is repeated.
    pub(crate) is_final: bool,
}

impl Answer {
    /// JSON.
    pub(crate) fn json(status: StatusCode, body: &impl serde::Serialize) -> Answer {
        Answer {
            status,
            kind: "application/json",
            body: serde_json::to_vec(body).unwrap_or_default().into(),
            is_final: true,
        }
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Answer {
        let status = problem.http_status();
        let is_final = status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 404 | 408 | 413 | 429);
        Answer {
            status,
            kind: "application/problem+json",
            body: serde_json::to_vec(&problem).unwrap_or_default().into(),
            is_final,
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Two hashes with keys of their own: of who asks for what under which key, or of a body.
type Hashed = (u64, u64);

type Working = Shared<BoxFuture<'static, Answer>>;

struct Entry {
    body: Hashed,
    working: Working,
    /// When it was answered, and bytes of the answer; none while it is worked on.
    answered: Option<(Instant, usize)>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Hashed, Entry>,
    /// Those that are answered, the oldest first. One that was forgotten meanwhile is passed over.
    order: VecDeque<(Hashed, Instant)>,
    bytes: usize,
}

impl Kept {
    fn forget(&mut self, key: Hashed, answered: Instant) {
        let is_it = |entry: &Entry| entry.answered.is_some_and(|(at, _)| at == answered);
        if self.entries.get(&key).is_some_and(is_it)
            && let Some(entry) = self.entries.remove(&key)
        {
            self.bytes -= entry.answered.map_or(0, |(_, bytes)| bytes);
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.order.pop_front();
        if let Some((key, answered)) = oldest {
            self.forget(key, answered);
        }
        oldest.is_some()
    }
}

/// The answers that are kept.
#[derive(Clone)]
pub(crate) struct Answers {
    keys: Arc<(RandomState, RandomState)>,
    kept: Arc<Mutex<Kept>>,
    count_max: usize,
    bytes_max: usize,
    time: Duration,
}

impl Answers {
    pub(crate) fn new(limits: &Limits) -> Answers {
        Answers {
            keys: Arc::default(),
            kept: Arc::default(),
            count_max: limits.idempotency_keys,
            bytes_max: limits.memory_bytes / MEMORY_PART,
            time: limits.idempotency_time,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, what: impl std::hash::Hash) -> Hashed {
        (self.keys.0.hash_one(&what), self.keys.1.hash_one(&what))
    }

    /// The key that the caller gave.
    pub(crate) fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
        let Some(value) = headers.get(HEADER) else {
            return Ok(None);
        };
        let key = value.to_str().ok().filter(|key| (1..=KEY_LEN_MAX).contains(&key.len()));
        let wrong = || {
            Problem::invalid(format!(
                "an Idempotency-Key is 1 to {KEY_LEN_MAX} visible letters of ASCII"
            ))
        };
        key.map(Some).ok_or_else(wrong)
    }

    /// What `make` answers, or has answered when it was asked for under this name the last time. It is made to its end, whether
    /// somebody waits for it or not.
    pub(crate) async fn once(
        &self,
        name: impl std::hash::Hash,
        body: &[u8],
        make: impl Future<Output = Answer> + Send + 'static,
    ) -> Result<Response, Problem> {
        if self.count_max == 0 {
            let off = Problem::invalid("this broker keeps no answers for requests that are repeated");
            return Err(off.next("leave out Idempotency-Key, or raise http.idempotency_keys_max"));
        }
        let (name, body) = (self.hash(name), self.hash(body));
        let (working, is_replay) = self.begin(name, body, make)?;
        let mut response = working.await.into_response();
        if is_replay {
            response
                .headers_mut()
                .insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    fn begin(
        &self,
        name: Hashed,
        body: Hashed,
        make: impl Future<Output = Answer> + Send + 'static,
    ) -> Result<(Working, bool), Problem> {
        let mut kept = self.kept();
        self.tidy_kept(&mut kept);
        if let Some(entry) = kept.entries.get(&name) {
            if entry.body == body {
                return Ok((entry.working.clone(), true));
            }
            let other = Problem::invalid("this Idempotency-Key was used for a request with another body");
            let other = other.status(StatusCode::UNPROCESSABLE_ENTITY);
            return Err(other.next("take a new key for each request, and the same one only to repeat it"));
        }
        while kept.entries.len() >= self.count_max {
            if !kept.forget_oldest() {
                return Err(Problem::busy(
                    "as many requests with an Idempotency-Key are under way as may be kept",
                    "try again after the time that Retry-After says, or raise http.idempotency_keys_max",
                ));
            }
        }
        let answers = self.clone();
        let task = tokio::spawn(async move {
            let answer = make.await;
            answers.end(name, &answer);
            answer
        });
        let working = async move {
            let failed = || Problem::new(ErrorCode::UnknownServerError, "the request was not done to its end");
            task.await.unwrap_or_else(|_panic| Answer::from(failed()))
        };
        let working = working.boxed().shared();
        let entry = Entry {
            body,
            working: working.clone(),
            answered: None,
        };
        kept.entries.insert(name, entry);
        Ok((working, false))
    }

    /// It is answered.
    fn end(&self, name: Hashed, answer: &Answer) {
        let mut kept = self.kept();
        if !answer.is_final {
            kept.entries.remove(&name);
            return;
        }
        let (now, bytes) = (Instant::now(), answer.body.len());
        if let Some(entry) = kept.entries.get_mut(&name) {
            entry.answered = Some((now, bytes));
            kept.bytes += bytes;
            kept.order.push_back((name, now));
        }
        while kept.bytes > self.bytes_max && kept.forget_oldest() {}
    }

    /// Forgets what is too old.
    pub(crate) fn tidy(&self) {
        self.tidy_kept(&mut self.kept());
    }

    fn tidy_kept(&self, kept: &mut Kept) {
        while let Some(&(_, answered)) = kept.order.front()
            && answered.elapsed() >= self.time
        {
            kept.forget_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn answers(count: usize, memory: usize) -> Answers {
        Answers::new(&Limits {
            idempotency_keys: count,
            memory_bytes: memory,
            idempotency_time: Duration::from_mins(1),
            ..Limits::default()
        })
    }

    /// Asks, and says with how many others before this answer was made, and whether it was given before.
    async fn ask(
        answers: &Answers,
        made: &Arc<AtomicUsize>,
        name: &str,
        body: &str,
    ) -> Result<(String, bool), Problem> {
        let own = Arc::clone(made);
        let answering = async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Answer::json(StatusCode::OK, &own.fetch_add(1, Ordering::Relaxed))
        };
        let response = answers.once(name, body.as_bytes(), answering).await?;
        let is_replay = response.headers().contains_key(REPLAYED);
        let bytes = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        Ok((String::from_utf8(bytes.to_vec()).unwrap(), is_replay))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_done_once_for_as_long_as_its_answer_is_kept() {
        let (answers, made) = (answers(2, 1 << 20), Arc::default());
        let (first, second) = tokio::join!(ask(&answers, &made, "a", "x"), ask(&answers, &made, "a", "x"));
        assert_eq!(first.unwrap(), ("0".to_owned(), false));
        assert_eq!(second.unwrap(), ("0".to_owned(), true));
        assert_eq!(ask(&answers, &made, "a", "y").await.unwrap_err().http_status(), 422);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(ask(&answers, &made, "a", "y").await.unwrap(), ("1".to_owned(), false));
        // The oldest gives way.
        for name in ["b", "c"] {
            assert!(!ask(&answers, &made, name, "x").await.unwrap().1);
        }
        assert!(!ask(&answers, &made, "a", "y").await.unwrap().1);
        assert_eq!(answers.kept().entries.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_does_not_undo_it_and_those_under_way_are_bounded() {
        let (answers, made) = (answers(1, 1 << 20), Arc::default());
        let left = tokio::time::timeout(Duration::from_millis(1), ask(&answers, &made, "a", "x"));
        assert!(left.await.is_err());
        assert_eq!(ask(&answers, &made, "b", "x").await.unwrap_err().http_status(), 503);
        assert_eq!(ask(&answers, &made, "a", "x").await.unwrap(), ("0".to_owned(), true));
        assert!(!ask(&answers, &made, "b", "x").await.unwrap().1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_leaves_it_open_is_not_kept_nor_are_too_many_bytes() {
        let answers = answers(10, 100);
        let busy = || async { Answer::from(Problem::busy("b", "n")) };
        assert_eq!(answers.once("a", b"", busy()).await.unwrap().status(), 503);
        assert!(answers.kept().entries.is_empty());
        let long = || async { Answer::json(StatusCode::OK, &"twenty letters or so") };
        for name in ["a", "b", "c"] {
            answers.once(name, b"", long()).await.unwrap();
        }
        let kept = answers.kept();
        assert!(kept.bytes <= 25);
        assert_eq!((kept.entries.len(), kept.order.len()), (1, 1));
    }
}
