//! What the broker's own metrics say, for the charts: the text is read at most once a second however many look, and not at all while
//! nobody does.
//!
//! The script makes rates of what has grown between two looks, so nothing is kept here but the last one.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::health;
use super::page::Refusal;

/// So long the same figures are shown to everybody.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Topics that one answer has figures of.
const TOPICS_MAX: usize = 100;

type Text = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// A way to the text of the broker's metrics, as `/metrics` has it.
#[derive(Clone)]
pub struct MetricsText(Arc<dyn Fn() -> Text + Send + Sync>);

impl MetricsText {
    /// Asks by `ask`, each time that somebody looks.
    pub fn by<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> MetricsText
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        MetricsText(Arc::new(move || Box::pin(ask())))
    }
}

impl fmt::Debug for MetricsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsText").finish_non_exhaustive()
    }
}

/// The last look.
pub(super) struct Source {
    text: Option<MetricsText>,
    last: Mutex<Option<(Instant, Arc<Figures>)>>,
}

impl Source {
    pub(super) fn new(text: Option<MetricsText>) -> Source {
        let last = Mutex::new(None);
        Source { text, last }
    }

    /// The figures as they are, or were within a second; whoever comes while they are fetched waits for the same ones.
    pub(super) async fn look(&self) -> Result<Arc<Figures>, Refusal> {
        let unavailable = |why: String| Refusal::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, why);
        let text = self.text.as_ref();
        let text = text.ok_or_else(|| unavailable("This broker does not give its metrics here.".to_owned()))?;
        let mut last = self.last.lock().await;
        if let Some((at, figures)) = &*last
            && at.elapsed() < AGE_MAX
        {
            return Ok(Arc::clone(figures));
        }
        let read = (text.0)().await.map_err(unavailable)?;
        let figures = Arc::new(Figures::read(&read));
        *last = Some((Instant::now(), Arc::clone(&figures)));
        Ok(figures)
    }
}

/// What is shown of the metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    /// Sums over cores, and over all labels that are not told apart.
    sums: BTreeMap<&'static str, f64>,
    /// Seconds that each core was busy.
    busy: BTreeMap<String, f64>,
    /// Of each stage, how many took so long at most, in seconds, over all cores.
    stages: BTreeMap<String, Vec<(f64, f64)>>,
    /// Of each topic, bytes: appended, fetched, stored. Of this broker's partitions.
    topics: BTreeMap<String, [f64; 3]>,
    certificates: Vec<(String, f64)>,
    version: String,
}

/// Metrics that are summed up, under their own names.
const SUMS: [&str; 22] = [
    "headwater_received_bytes_total",
    "headwater_sent_bytes_total",
    "headwater_fetch_bytes_total",
    "headwater_requests_total",
    "headwater_kafka_requests_total",
    "headwater_disk_bytes_total{write}",
    "headwater_disk_bytes_total{flush}",
    "headwater_journal_frames_total",
    "headwater_connections",
    "headwater_errors_total",
    "headwater_partitions_led",
    "headwater_replicas_catching_up",
    "headwater_replica_lag_bytes_max",
    "headwater_tail_buffer_bytes",
    "headwater_tail_buffer_bytes_max",
    "headwater_stalls_total",
    "headwater_group_lag",
    "headwater_journal_failed",
    "headwater_compaction_halted_partitions",
    "headwater_damage_total",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
];

impl Figures {
    /// Reads the text, line by line; what is not known is passed over.
    pub(super) fn read(text: &str) -> Figures {
        let mut figures = Figures::default();
        for sample in text.lines().filter_map(Sample::read) {
            figures.take(&sample);
        }
        figures
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let value = sample.value;
        match sample.name {
            "headwater_stage_seconds_bucket" => {
                let (Some(stage), Some(le)) = (sample.label("stage"), sample.label("le")) else {
                    return;
                };
                let le = if le == "+Inf" {
                    f64::INFINITY
                } else {
                    le.parse().unwrap_or(f64::NAN)
                };
                let buckets = self.stages.entry(stage.into_owned()).or_default();
                match buckets.iter_mut().find(|(known, _)| (*known).total_cmp(&le).is_eq()) {
                    Some((_, count)) => *count += value,
                    None => buckets.push((le, value)),
                }
            }
            "headwater_busy_seconds_total" => {
                let Some(core) = sample.label("core") else { return };
                *self.busy.entry(core.into_owned()).or_default() += value;
            }
            "headwater_partition_appended_bytes_total" => self.take_topic(sample, 0),
            "headwater_partition_fetched_bytes_total" => self.take_topic(sample, 1),
            "headwater_partition_size_bytes" => self.take_topic(sample, 2),
            "headwater_tls_certificate_expiry_timestamp_seconds" => {
                let port = sample.label("port").unwrap_or_default().into_owned();
                self.certificates.push((port, value));
            }
            "headwater_build_info" => self.version = sample.label("version").unwrap_or_default().into_owned(),
            "headwater_disk_bytes_total" => {
                let operation = sample.label("operation").unwrap_or_default();
                let name = format!("{}{{{operation}}}", sample.name);
                self.sum(&name, value);
            }
            name => self.sum(name, value),
        }
    }

    fn take_topic(&mut self, sample: &Sample<'_>, place: usize) {
        if let Some(topic) = sample.label("topic") {
            self.topics.entry(topic.into_owned()).or_default()[place] += sample.value;
        }
    }

    fn sum(&mut self, name: &str, value: f64) {
        if let Some(name) = SUMS.iter().find(|known| **known == name) {
            *self.sums.entry(name).or_default() += value;
        }
    }

    /// What a metric comes to.
    pub(super) fn get(&self, name: &str) -> f64 {
        self.sums.get(name).copied().unwrap_or_default()
    }

    /// The version of the broker's program.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// How many seconds each core was busy.
    pub(super) fn cores(&self) -> impl Iterator<Item = (&str, f64)> {
        self.busy.iter().map(|(core, seconds)| (core.as_str(), *seconds))
    }

    /// The time below which a share of all of a stage lies, in seconds, and how many there were, since the broker was started.
    pub(super) fn quantile(&self, stage: &str, share: f64) -> Option<(f64, f64)> {
        let buckets = self.stages.get(stage)?;
        let total = buckets.last()?.1;
        let within = buckets.iter().find(|(_, count)| *count >= total * share)?;
        (total > 0.0).then_some((within.0, total))
    }

    /// What the judgement on the cluster takes from here.
    pub(super) fn health(&self) -> health::Figures {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let certificates = self.certificates.iter();
        health::Figures {
            journal_failed: self.get("headwater_journal_failed") > 0.0,
            compaction_halted: self.get("headwater_compaction_halted_partitions") as u64,
            damage: self.get("headwater_damage_total") as u64,
            certificates: certificates
                .map(|(port, at)| (port.clone(), (at - now) as i64))
                .collect(),
        }
    }

    /// As the script takes them, with the topics that it has named.
    pub(super) fn json<'a>(&self, topics: impl Iterator<Item = &'a str>) -> Value {
        let known = |topic: &'a str| Some((topic.to_owned(), json!(self.topics.get(topic)?)));
        let topics: serde_json::Map<String, Value> = topics.take(TOPICS_MAX).filter_map(known).collect();
        let finite = |(le, count): &(f64, f64)| json!([if le.is_finite() { json!(le) } else { Value::Null }, count]);
        let stages = self.stages.iter();
        let stages: serde_json::Map<String, Value> = stages
            .map(|(stage, buckets)| (stage.clone(), buckets.iter().map(finite).collect()))
            .collect();
        json!({ "sums": self.sums, "busy": self.busy, "stages": stages, "topics": topics })
    }
}

/// A line of the text.
struct Sample<'a> {
    name: &'a str,
    /// Between the braces.
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Sample<'a>> {
        if line.starts_with('#') {
            return None;
        }
        let name_end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(name_end);
        let (labels, rest) = match rest.strip_prefix('{') {
            // A brace within a value stands within quotes.
            Some(rest) => {
                let end = end_of_labels(rest)?;
                (&rest[..end], &rest[end + 1..])
            }
            None => ("", rest),
        };
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Sample { name, labels, value })
    }

    /// The value of a label.
    fn label(&self, name: &str) -> Option<std::borrow::Cow<'a, str>> {
        let mut rest = self.labels;
        loop {
            let (known, after) = rest.split_once("=\"")?;
            let end = end_of_value(after)?;
            if known == name {
                let value = &after[..end];
                return Some(if value.contains('\\') {
                    unescape(value).into()
                } else {
                    value.into()
                });
            }
            rest = after[end + 1..].trim_start_matches(',');
        }
    }
}

fn end_of_labels(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let next = at + text[at..].find(['"', '}'])?;
        if text[next..].starts_with('}') {
            return Some(next);
        }
        at = next + 1 + end_of_value(&text[next + 1..])? + 1;
    }
}

/// Where the quote is that ends a value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(
                characters
                    .next()
                    .map(|escaped| if escaped == 'n' { '\n' } else { escaped }),
            ),
            plain => out.push(plain),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TEXT: &str = "# TYPE headwater_connections gauge\n\
        headwater_connections{core=\"0\"} 3\n\
        headwater_connections{core=\"1\"} 4\n\
        headwater_disk_bytes_total{core=\"0\",operation=\"flush\"} 10\n\
        headwater_disk_bytes_total{core=\"0\",operation=\"write\"} 20\n\
        headwater_stage_seconds_bucket{le=\"0.001\",core=\"0\",stage=\"flush\"} 5\n\
        headwater_stage_seconds_bucket{le=\"+Inf\",core=\"0\",stage=\"flush\"} 10\n\
        headwater_stage_seconds_bucket{le=\"0.001\",core=\"1\",stage=\"flush\"} 5\n\
        headwater_stage_seconds_bucket{le=\"+Inf\",core=\"1\",stage=\"flush\"} 10\n\
        headwater_partition_size_bytes{topic=\"t\",partition=\"0\"} 7\n\
        headwater_partition_size_bytes{topic=\"t\",partition=\"1\"} 8\n\
        headwater_group_lag{group=\"a\\\"}b\\\\\",topic=\"t\",partition=\"0\"} 9 1700000000\n\
        headwater_build_info{version=\"1.2.3\"} 1\n\
        of nobody\n# EOF\n";

    #[test]
    fn the_text_is_summed_over_cores_and_labels() {
        let figures = Figures::read(TEXT);
        assert_eq!(
            figures.get("headwater_connections").total_cmp(&7.0),
            std::cmp::Ordering::Equal
        );
        assert_eq!(
            figures.get("headwater_disk_bytes_total{flush}").total_cmp(&10.0),
            std::cmp::Ordering::Equal
        );
        assert_eq!(
            figures.get("headwater_group_lag").total_cmp(&9.0),
            std::cmp::Ordering::Equal
        );
        assert_eq!(figures.quantile("flush", 0.5), Some((0.001, 20.0)));
        assert_eq!(figures.version(), "1.2.3");
        let json = figures.json(["t", "unknown"].into_iter());
        assert_eq!(json["topics"], json!({ "t": [0.0, 0.0, 15.0] }));
        assert_eq!(json["stages"]["flush"], json!([[0.001, 10.0], [null, 20.0]]));
    }

    #[test]
    fn a_label_may_have_whatever_stands_between_labels() {
        let sample = Sample::read("m{a=\"x\\\\\",b=\"},\\\"=\\n\",c=\"y\"} 1.5").unwrap();
        assert_eq!(sample.label("a").unwrap(), "x\\");
        assert_eq!(sample.label("b").unwrap(), "},\"=\n");
        assert_eq!(sample.label("c").unwrap(), "y");
        assert_eq!(sample.label("d"), None);
        for cut in [
            "m{a=\"x",
            "m{",
            "m",
            "",
            "m{a=\"x\"}",
            "m{a} 1",
            "\u{e9}{\u{e9}=\"\u{e9}\"} 1",
        ] {
            if let Some(sample) = Sample::read(cut) {
                sample.label("a");
            }
        }
    }

    #[tokio::test]
    async fn however_many_look_the_broker_is_asked_once_a_second() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let text = MetricsText::by(move || {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok(TEXT.to_owned()) }
        });
        let source = Source::new(Some(text));
        let looks = (0..50).map(|_| source.look());
        assert!(futures::future::join_all(looks).await.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        Source::new(None).look().await.unwrap_err();
    }
}
