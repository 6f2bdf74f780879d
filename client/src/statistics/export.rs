//! Statistics for the recorder that the program has installed for the `metrics` crate: for Prometheus and whatever else.
//!
//! Written from snapshots when the program asks for it, so that nothing is recorded where records are sent.

use metrics::{counter, gauge};

use super::{AddressStatistics, ClientStatistics, Latencies, ProducerStatistics};

impl ProducerStatistics {
    /// Writes all of it to the recorder of the `metrics` crate, as `headwater_producer_…` with the label `producer`. Call it at an
    /// interval; needs the feature `metrics`.
    ///
    /// ```no_run
    /// # fn example(producer: headwater_client::Producer) {
    /// tokio::spawn(async move {
    ///     let mut interval = tokio::time::interval(std::time::Duration::from_secs(10));
    ///     loop {
    ///         interval.tick().await;
    ///         producer.statistics().export("orders");
    ///     }
    /// });
    /// # }
    /// ```
    pub fn export(&self, producer: &str) {
        let label = || [("producer", producer.to_owned())];
        counter!("headwater_producer_records_total", &label()).absolute(self.records);
        counter!("headwater_producer_records_acknowledged_total", &label()).absolute(self.records_acknowledged);
        counter!("headwater_producer_records_failed_total", &label()).absolute(self.records_failed);
        counter!("headwater_producer_records_refused_total", &label()).absolute(self.records_refused);
        counter!("headwater_producer_sent_bytes_total", &label()).absolute(self.bytes_sent);
        counter!("headwater_producer_acknowledged_bytes_total", &label()).absolute(self.bytes_acknowledged);
        counter!("headwater_producer_batches_sent_total", &label()).absolute(self.batches_sent);
        counter!("headwater_producer_retries_total", &label()).absolute(self.retries);
        counter!("headwater_producer_splits_total", &label()).absolute(self.splits);
        gauge!("headwater_producer_memory_used_bytes", &label()).set(self.memory_used as f64);
        self.latency.export("headwater_producer_latency_seconds", &label()[0]);
    }
}

impl ClientStatistics {
    /// Writes all of it to the recorder of the `metrics` crate, as `headwater_client_…` with the label `address`. Call it at an interval;
    /// needs the feature `metrics`.
    pub fn export(&self) {
        self.addresses.iter().for_each(AddressStatistics::export);
    }
}

impl AddressStatistics {
    fn export(&self) {
        let label = || [("address", self.address.to_string())];
        gauge!("headwater_client_connected", &label()).set(f64::from(u8::from(self.is_connected)));
        counter!("headwater_client_connects_total", &label()).absolute(self.connects);
        counter!("headwater_client_connect_failures_total", &label()).absolute(self.connect_failures);
        counter!("headwater_client_losses_total", &label()).absolute(self.losses);
        counter!("headwater_client_requests_total", &label()).absolute(self.requests);
        gauge!("headwater_client_requests_in_flight", &label()).set(self.in_flight as f64);
        self.round_trip
            .export("headwater_client_round_trip_seconds", &label()[0]);
    }
}

impl Latencies {
    /// As a summary: a gauge for each quantile, over the whole time.
    fn export(&self, name: &'static str, label: &(&'static str, String)) {
        for (quantile, latency) in [
            ("0.5", self.p50),
            ("0.9", self.p90),
            ("0.99", self.p99),
            ("0.999", self.p999),
            ("1", self.max),
        ] {
            let labels = [label.clone(), ("quantile", quantile.to_owned())];
            gauge!(name, &labels).set(latency.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

    use super::*;

    /// Keeps the bits of what was recorded.
    #[derive(Default)]
    struct Recorded(Mutex<HashMap<Key, Arc<AtomicU64>>>);

    impl Recorded {
        fn slot(&self, key: &Key) -> Arc<AtomicU64> {
            Arc::clone(self.0.lock().unwrap().entry(key.clone()).or_default())
        }

        fn get(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> u64 {
            let key = Key::from_parts(name, labels);
            let recorded = self.0.lock().unwrap();
            let found = recorded.get(&key);
            found.unwrap_or_else(|| panic!("no {key}")).load(Ordering::Relaxed)
        }
    }

    impl Recorder for Recorded {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.slot(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.slot(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn what_is_counted_reaches_the_programs_recorder_under_its_producer_and_address() {
        let producer = ProducerStatistics {
            records: 7,
            latency: Latencies {
                p99: Duration::from_millis(1500),
                ..Latencies::default()
            },
            ..ProducerStatistics::default()
        };
        let address = AddressStatistics {
            address: "broker:9000".parse().unwrap(),
            is_connected: true,
            connects: 3,
            connect_failures: 0,
            losses: 2,
            requests: 40,
            in_flight: 1,
            round_trip: Latencies::default(),
        };
        let client = ClientStatistics {
            addresses: vec![address],
        };
        let recorded = Recorded::default();
        metrics::with_local_recorder(&recorded, || {
            producer.export("orders");
            client.export();
        });
        let orders = ("producer", "orders");
        assert_eq!(recorded.get("headwater_producer_records_total", &[orders]), 7);
        let latency = recorded.get("headwater_producer_latency_seconds", &[orders, ("quantile", "0.99")]);
        assert!((f64::from_bits(latency) - 1.5).abs() < 1e-9);
        let broker = [("address", "broker:9000")];
        assert_eq!(recorded.get("headwater_client_losses_total", &broker), 2);
        let connected = recorded.get("headwater_client_connected", &broker);
        assert!((f64::from_bits(connected) - 1.0).abs() < 1e-9);
    }
}
