//! Three brokers as one cluster: who is there, who has what, whether all is well, and how that is changed.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use headwater_server::{Broker, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{pause, program, ran};

/// Nothing takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(1);

/// In this process, each with its data.
struct Trio {
    brokers: Vec<Option<Broker>>,
    server: String,
    directory: TempDir,
}

/// A free port of an address that nothing else on this machine has.
fn free(number: u8) -> SocketAddr {
    let process = std::process::id();
    // Not where the tests of the server have theirs.
    let ip = Ipv4Addr::new(
        127,
        1 + (process / 256 % 254) as u8,
        (process % 256) as u8,
        240 + number,
    );
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

impl Trio {
    fn start() -> Self {
        rustix::thread::disable_transparent_huge_pages(true).unwrap();
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (peers, listens) = ([0, 1, 2].map(free), [0, 1, 2].map(free));
        let members = [0, 1, 2].map(|number| format!("{number}@{}", peers[number])).join(",");
        // Each waits for the others.
        let starting = [0, 1, 2].map(|number| {
            let data = directory.path().join(number.to_string());
            let settings = [
                ("broker.id", number.to_string()),
                ("broker.cluster_id", "trio".to_owned()),
                ("broker.rack", format!("room-{number}")),
                ("broker.listen", listens[number].to_string()),
                ("cluster.listen", peers[number].to_string()),
                ("cluster.members", members.clone()),
                ("log.directory", data.to_str().unwrap().to_owned()),
                ("cores.count", "1".to_owned()),
                ("cores.pin", "false".to_owned()),
                ("cores.tail_buffer_bytes_max", "16MiB".to_owned()),
                ("log.segment_size_bytes", "16MiB".to_owned()),
                ("groups.offsets_partitions", "4".to_owned()),
            ];
            thread::spawn(move || {
                let settings = settings.iter().map(|(key, value)| (*key, value.as_str()));
                Broker::start(Config::default().with(settings).unwrap()).unwrap()
            })
        });
        Self {
            brokers: starting.map(|broker| Some(broker.join().unwrap())).into(),
            server: listens.map(|address| address.to_string()).join(","),
            directory,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("HEADWATER_SERVER", &self.server);
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        ran(self.command(arguments).output().unwrap()).ok(arguments)
    }

    /// What a command notes that has nothing to print.
    fn notes(&self, arguments: &[&str]) -> String {
        let mut command = program(arguments);
        command.env("HEADWATER_SERVER", &self.server);
        let ran = ran(command.output().unwrap());
        assert_eq!((ran.code, &*ran.out), (Some(0), &b""[..]), "{arguments:?}: {}", ran.err);
        ran.err
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--output", "json"]].concat())).unwrap()
    }

    /// Looks again and again; brokers hear of what is agreed on a little later.
    fn await_json(&self, arguments: &[&str], is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LONG;
        loop {
            let seen = self.json(arguments);
            if is_it(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{arguments:?} shows {seen}");
            pause();
        }
    }

    fn stop(&mut self, number: usize) {
        self.brokers[number].take().unwrap().shutdown().unwrap();
    }
}

#[test]
fn a_glance_shows_that_all_is_well_and_when_a_broker_is_gone_what_to_do() {
    let mut trio = Trio::start();
    let status = trio.await_json(&["cluster", "status"], |status| {
        status["brokers"].as_array().unwrap().len() == 3
    });
    assert_eq!(status["cluster"], "trio");
    trio.ok(&[
        "topic",
        "create",
        "orders",
        "--partitions",
        "3",
        "--replication-factor",
        "3",
    ]);
    let well = trio.await_json(&["cluster", "status"], |status| status["well"] == true);
    assert_eq!(
        well["partitions"],
        json!({"all": 3, "under_replicated": 0, "under_min_isr": 0, "offline": 0, "moving": 0})
    );
    assert_eq!(well["findings"], json!([]));
    let text = trio.ok(&["cluster", "status"]);
    assert!(
        text.lines()
            .any(|line| line.starts_with("state ") && line.ends_with("all is well")),
        "{text}"
    );

    let topic = trio.json(&["topic", "describe", "orders"]);
    for partition in topic["partitions"].as_array().unwrap() {
        let sorted = |name: &str| {
            let mut ids: Vec<i64> = partition[name]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_i64().unwrap())
                .collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(sorted("replicas"), [0, 1, 2], "{partition}");
        assert_eq!(sorted("isr"), [0, 1, 2], "{partition}");
        assert_eq!(partition["leader"], partition["replicas"][0], "{partition}");
        assert_eq!(partition["min_isr"], 2, "{partition}");
    }
    let text = trio.ok(&["topic", "describe", "orders"]);
    assert!(text.contains("IN SYNC") && text.contains("well"), "{text}");

    let broker = trio.json(&["broker", "describe", "1"]);
    assert_eq!(broker["rack"], "room-1");
    assert_eq!((&broker["replicas"], &broker["fenced"]), (&json!(3), &json!(false)));
    assert_eq!(trio.json(&["broker", "list"]).as_array().unwrap().len(), 3);

    let features = trio.json(&["cluster", "features"]);
    let can = |id: i32| json!({"id": id, "oldest": 1, "newest": 1});
    let all = json!({"finalised": 1, "can_finalise": null, "brokers": [can(0), can(1), can(2)]});
    assert_eq!(features, all);
    let finalise = ran(trio.command(&["cluster", "finalise", "2", "--yes"]).output().unwrap());
    assert_eq!(finalise.code, Some(5), "{finalise:?}");
    assert!(
        finalise
            .err
            .contains("broker 0 can do feature level 1 only, not 2: upgrade it first"),
        "{finalise:?}"
    );

    moves_and_elections(&trio);
    trio.stop(1);
    let unwell = trio.await_json(&["cluster", "status"], |status| {
        status["partitions"]["under_replicated"] == 5
            && status["brokers"][1]["fenced"] == true
            && status["brokers"][1]["leads"] == 0
    });
    assert_eq!(
        (&unwell["well"], &unwell["partitions"]["offline"]),
        (&json!(false), &json!(0))
    );
    let findings = unwell["findings"].as_array().unwrap();
    let about_it = findings
        .iter()
        .find(|found| found["what"] == "broker 1 is not there: its 5 replicas are not in sync");
    assert!(
        about_it.unwrap()["todo"].as_str().unwrap().contains("start broker 1"),
        "{unwell}"
    );
    assert_eq!(unwell["unwell"].as_array().unwrap().len(), 5, "{unwell}");
    assert_eq!(unwell["unwell"][0]["lacks"], "under-replicated");
    let text = trio.ok(&["cluster", "status"]);
    assert!(
        text.contains("NOT WELL") && text.contains("! broker 1 is not there"),
        "{text}"
    );
    let text = trio.ok(&["broker", "list"]);
    assert!(text.lines().nth(2).unwrap().ends_with("NOT THERE"), "{text}");
    takes_out_what_is_gone(&trio);
}

/// The replicas of a partition.
fn replicas(topic: &Value, partition: usize) -> &Value {
    &topic["partitions"][partition]["replicas"]
}

fn moves_and_elections(trio: &Trio) {
    trio.ok(&["topic", "create", "moved", "-p", "2", "--replication-factor", "2"]);
    let now = [["0", "2,0"], ["1", "0,2"]];
    for [partition, to] in now {
        trio.notes(&["partition", "move", "moved", partition, "--to", to, "--no-wait"]);
    }
    let at_home = |topic: &Value| replicas(topic, 0) == &json!([2, 0]) && replicas(topic, 1) == &json!([0, 2]);
    trio.await_json(&["topic", "describe", "moved"], at_home);
    trio.await_json(&["partition", "moves"], |moves| moves == &json!([]));

    // Of one broker everything to another: shown, then done by what was shown.
    let arguments = ["partition", "move", "moved", "--from", "0", "--to", "1", "--plan"];
    let text = trio.ok(&arguments);
    assert!(
        text.lines().nth(1).unwrap().starts_with("moved") && text.contains("2,1"),
        "{text}"
    );
    let plan = trio.json(&arguments);
    assert_eq!(plan["version"], 1);
    let first = &plan["partitions"][0];
    assert_eq!((&first["before"], &first["replicas"]), (&json!([2, 0]), &json!([2, 1])));
    assert_eq!((&first["adding"], &first["removing"]), (&json!([1]), &json!([0])));
    assert!(
        at_home(&trio.json(&["topic", "describe", "moved"])),
        "a plan changes nothing"
    );
    let file = trio.directory.path().join("plan.json");
    fs::write(&file, plan.to_string()).unwrap();
    let notes = trio.notes(&["partition", "move", "--file", file.to_str().unwrap()]);
    assert!(
        notes.contains("begun, for 2 partitions") && notes.contains("all of them are there"),
        "{notes}"
    );
    let topic = trio.await_json(&["topic", "describe", "moved"], |topic| {
        replicas(topic, 1) == &json!([1, 2])
    });
    assert_eq!(replicas(&topic, 0), &json!([2, 1]));
    let notes = trio.notes(&["partition", "move", "moved", "--from", "0", "--to", "1"]);
    assert!(notes.contains("nothing moves"), "{notes}");

    // Whoever is to lead does not lead yet, and then does.
    trio.notes(&["partition", "move", "moved", "1", "--to", "2,1"]);
    let notes = trio.notes(&["partition", "elect"]);
    assert!(notes.contains("elected"), "{notes}");
    trio.await_json(&["topic", "describe", "moved"], |topic| {
        topic["partitions"][1]["leader"] == 2
    });

    trio.notes(&["broker", "cordon", "0"]);
    trio.await_json(&["broker", "describe", "0"], |broker| broker["cordoned"] == true);
    trio.ok(&["topic", "create", "elsewhere", "-p", "3", "--replication-factor", "1"]);
    let topic = trio.json(&["topic", "describe", "elsewhere"]);
    assert!(
        (0..3).all(|partition| replicas(&topic, partition) != &json!([0])),
        "{topic}"
    );
    trio.notes(&["broker", "uncordon", "0"]);
    trio.await_json(&["broker", "describe", "0"], |broker| broker["cordoned"] == false);
    trio.notes(&["partition", "move", "elsewhere", "--to", "2"]);
}

/// Broker 1 is stopped.
fn takes_out_what_is_gone(trio: &Trio) {
    // It cannot take anything in.
    trio.notes(&["partition", "move", "elsewhere", "0", "--to", "1,2", "--no-wait"]);
    let moves = trio.await_json(&["partition", "moves"], |moves| moves != &json!([]));
    assert_eq!(
        (&moves[0]["topic"], &moves[0]["adding"]),
        (&json!("elsewhere"), &json!([1]))
    );
    let text = trio.ok(&["partition", "moves"]);
    assert!(text.contains("GET IT") && text.contains("elsewhere"), "{text}");
    trio.notes(&["partition", "move", "--cancel"]);
    trio.await_json(&["partition", "moves"], |moves| moves == &json!([]));

    let mut command = program(&["broker", "forget", "1", "--yes"]);
    let refused = ran(command.env("HEADWATER_SERVER", &trio.server).output().unwrap());
    assert_eq!(refused.code, Some(5), "{}", refused.err);
    assert!(refused.err.contains("still has a replica"), "{}", refused.err);
    for partition in ["0", "1", "2"] {
        trio.notes(&["partition", "move", "orders", partition, "--to", "0,2"]);
    }
    let notes = trio.notes(&["broker", "drain", "1", "--yes"]);
    assert!(
        notes.contains("2 replicas move") && notes.contains("it has nothing left"),
        "{notes}"
    );
    trio.notes(&["broker", "forget", "1", "--yes"]);
    trio.await_json(&["broker", "list"], |brokers| brokers.as_array().unwrap().len() == 2);
}
