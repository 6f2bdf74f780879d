//! How a broker is.

use serde_json::json;

use crate::support::{Site, pause};

#[test]
fn the_status_of_a_broker_is_what_it_has_and_what_it_does() {
    let site = Site::with(&[("metrics.listen", "127.0.0.1:0")]);
    site.ok(&["topic", "create", "t", "-p", "3"]);
    let status = &site.json(&["status"])[0];
    for (name, value) in [
        ("server", json!(site.address())),
        ("broker", json!(0)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("cores", json!(1)),
        ("cores_up", json!(1)),
        ("topics", json!(1)),
        ("partitions", json!(3)),
        ("partitions_offline", json!(0)),
        ("groups", json!(0)),
        ("group_members", json!(0)),
    ] {
        assert_eq!(status[name], value, "{name}");
    }
    assert!(status["connections"].as_u64().unwrap() >= 1);
    let bytes = |name: &str| status["disk"][name].as_u64().unwrap();
    assert!(0 < bytes("free_bytes") && bytes("free_bytes") <= bytes("size_bytes"));
    assert!(status["metrics"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(
        status["bytes_per_second"]["fetched"], 0,
        "what answers this is not throughput"
    );
    let text = site.ok(&["status"]);
    for line in [
        "partitions   3, none offline",
        "groups       0, with 0 members",
        "cores        1",
    ] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    assert!(text.lines().count() < 20, "more than a screen: {text}");
}

#[test]
fn throughput_is_what_comes_in_and_what_consumers_get() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    let mut producer = site.spawn(&["produce", "t"]);
    let mut consumer = site.spawn(&["consume", "t", "--follow"]);
    let mut input = producer.stdin.take().unwrap();
    // Slowly enough for a disk of any size, and until the producer is killed.
    let writer = std::thread::spawn(move || {
        let lines = [[b'x'; 999].as_slice(), b"\n"].concat().repeat(1000);
        while std::io::Write::write_all(&mut input, &lines).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    let mut output = consumer.stdout.take().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    loop {
        let rates = site.json(&["status"])[0]["bytes_per_second"].take();
        if ["received", "fetched"]
            .iter()
            .all(|way| rates[way].as_u64() > Some(100_000))
        {
            break;
        }
        pause();
    }
    for mut child in [producer, consumer] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    writer.join().unwrap();
    reader.join().unwrap().unwrap();
}
