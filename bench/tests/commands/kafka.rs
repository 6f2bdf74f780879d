//! Headwater by Kafka's protocol, as a client of Kafka's sees it.

use serde_json::Value;

use crate::support::{Place, assert_undamaged, bench, json};

/// Of brokers that share a machine with other tests.
const SMALL: &str = "--tail-buffer 16MiB --limits off";

#[test]
fn headwater_is_measured_by_kafkas_protocol_and_every_record_is_verified() {
    let place = Place::new();
    let load = "--partitions 100 --record-size 100 --bytes 2MB";
    let output = bench(&format!("quick --system kafka {load} --output json {SMALL} {place}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_undamaged(&report["consume"]);
    assert_eq!(report["produce"]["records"], 20_000);
    assert_eq!(report["consume"]["records"], 20_000);
    let notes = report["notes"].as_array().unwrap();
    let tells = |word: &str| notes.iter().any(|note| note.as_str().unwrap().contains(word));
    assert!(tells("client: librdkafka") && tells("batches of 256 KiB"), "{notes:?}");
    assert!(report["fetch_bytes"]["tail"].as_u64().unwrap() >= 2_000_000, "{report}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn one_table_has_both_protocols_in_turns() {
    let place = Place::new();
    let load = "--bytes 1MB --workload consume --repeat 2";
    let axis = "--axis system=headwater,kafka";
    let output = bench(&format!("sweep {axis} {load} --output json {SMALL} {place}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let cells = report["cells"].as_array().unwrap();
    let of = |cell: &Value, client: &str| {
        let notes = cell["notes"].as_array().unwrap();
        let tells = notes.iter().any(|note| note.as_str().unwrap().contains(client));
        assert!(tells, "{client} in {notes:?}");
        assert_eq!(cell["runs"].as_array().unwrap().len(), 2);
    };
    of(&cells[0], "client: Headwater's");
    of(&cells[1], "client: librdkafka");
    let refused = bench(&format!("sweep {axis} --server 127.0.0.1:9"));
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn of_a_broker_that_is_killed_kafkas_clients_lose_nothing() {
    let place = Place::new();
    let load = "--partitions 3 --rate 500 --record-size 100";
    let output = bench(&format!(
        "failover --system kafka --kills 1 --interval 1 --down 1 {load} --output json {SMALL} {place}"
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_undamaged(&report["end_to_end"]);
    assert_undamaged(&report["read_back"]);
    assert_eq!(report["read_back"]["records"], report["produce"]["records"]);
    assert_eq!(report["replication"]["replication_factor"], 3);
    assert_eq!(report["replication"]["min_insync_replicas"], 2);
    let kill = &report["failover"]["kills"][0];
    assert!(
        kill["partitions_led"].as_u64().unwrap() > 0 && kill["silent_ms"].as_f64().unwrap() > 0.0,
        "{kill}"
    );
    assert!(place.names().is_empty(), "{:?}", place.names());
}
