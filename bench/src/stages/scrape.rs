//! One reading of a broker's metrics, in Prometheus' text format. Bounded: an answer that is too long is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_parse::{HistogramCount, Value};

use super::Histogram;

/// Longest answer that is read, in bytes: 256 cores with all their stages and far more.
const BYTES_MAX: u64 = 16 << 20;

/// A broker that does not answer within this has no metrics for us.
const PATIENCE: Duration = Duration::from_secs(2);

const STAGES: &str = "headwater_stage_seconds";
const FETCH_BYTES: &str = "headwater_fetch_bytes_total";

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// No answer, or one that is too long.
    #[error("{address} does not give its metrics: {source}; check --metrics")]
    Fetch {
        /// Where.
        address: String,
        /// The cause.
        source: Box<ureq::Error>,
    },
    /// Not Prometheus' text format.
    #[error("the metrics cannot be read: {0}")]
    Parse(#[source] std::io::Error),
}

/// What is of interest here of a broker's metrics.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// By stage, over all cores.
    pub(super) stages: BTreeMap<String, Histogram>,
    /// By the path that served them.
    pub(super) fetch_bytes: BTreeMap<String, f64>,
    /// Every other number by the metric's name, over all cores and labels.
    levels: BTreeMap<String, f64>,
}

impl Scrape {
    /// Asks the broker at this address. Blocks, for seconds at most.
    pub fn fetch(address: &str) -> Result<Self, ScrapeError> {
        let failed = |source| ScrapeError::Fetch {
            address: address.to_owned(),
            source: Box::new(source),
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut response = agent.get(format!("http://{address}/metrics")).call().map_err(failed)?;
        let text = response.body_mut().with_config().limit(BYTES_MAX).read_to_string();
        Self::parse(&text.map_err(failed)?)
    }

    /// Asks several brokers, and takes them as one.
    pub fn fetch_all(addresses: &[String]) -> Result<Self, ScrapeError> {
        let mut all = Self::default();
        for address in addresses {
            let one = Self::fetch(address)?;
            for (stage, histogram) in one.stages {
                all.stages.entry(stage).or_default().add_all(&histogram);
            }
            for (path, bytes) in one.fetch_bytes {
                *all.fetch_bytes.entry(path).or_default() += bytes;
            }
            for (name, value) in one.levels {
                *all.levels.entry(name).or_default() += value;
            }
        }
        Ok(all)
    }

    /// Reads the text.
    pub fn parse(text: &str) -> Result<Self, ScrapeError> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let parsed = prometheus_parse::Scrape::parse(lines).map_err(ScrapeError::Parse)?;
        let mut scrape = Self::default();
        for sample in parsed.samples {
            let stage = || sample.labels.get("stage").map(str::to_owned);
            match (sample.metric.as_str(), &sample.value) {
                (STAGES, Value::Histogram(buckets)) => {
                    if let Some(stage) = stage() {
                        scrape.stages.entry(stage).or_default().add(&sorted(buckets));
                    }
                }
                (FETCH_BYTES, Value::Counter(bytes) | Value::Untyped(bytes)) => {
                    let path = sample.labels.get("path").unwrap_or("unknown").to_owned();
                    *scrape.fetch_bytes.entry(path).or_default() += bytes;
                }
                (name, Value::Untyped(value) | Value::Counter(value) | Value::Gauge(value)) => {
                    let part = name.strip_prefix(STAGES);
                    if let (Some(part @ ("_sum" | "_count")), Some(stage)) = (part, stage()) {
                        let histogram = scrape.stages.entry(stage).or_default();
                        *(if part == "_sum" {
                            &mut histogram.sum
                        } else {
                            &mut histogram.count
                        }) += value;
                    } else {
                        *scrape.levels.entry(name.to_owned()).or_default() += value;
                    }
                }
                _ => {}
            }
        }
        Ok(scrape)
    }

    /// A gauge or a counter, over all cores and labels; `None` if the broker does not have it.
    pub fn level(&self, name: &str) -> Option<f64> {
        self.levels.get(name).copied()
    }
}

fn sorted(buckets: &[HistogramCount]) -> Vec<(f64, f64)> {
    let mut sorted: Vec<_> = buckets.iter().map(|bucket| (bucket.less_than, bucket.count)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    sorted
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with this body.
    fn serve(body: impl Fn(&mut dyn std::io::Write) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n")
                .unwrap();
            body(&mut stream);
        });
        address
    }

    #[test]
    fn metrics_are_read_over_http() {
        let address = serve(|out| out.write_all(include_bytes!("testdata/after.prom")).unwrap());
        let scrape = Scrape::fetch(&address).unwrap();
        assert_eq!(scrape.stages.len(), 3);
    }

    #[test]
    fn an_endless_answer_is_refused_and_so_is_none() {
        let address = serve(|out| while out.write_all(&[b'#'; 4096]).is_ok() {});
        let error = Scrape::fetch(&address).unwrap_err().to_string();
        assert!(error.contains("--metrics"), "{error}");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(Scrape::fetch(&closed.to_string()).is_err());
    }
}
