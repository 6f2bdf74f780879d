//! File systems that lack what ext4 and XFS have: what can be done without is, and is named; what cannot is refused at the start.
//!
//! They are mounted where only the process under test sees them, which needs root. Without it the tests say so and pass, unless
//! `HEADWATER_REQUIRE_ROOT_TESTS` is set to 1.

use std::{fs::File, os::fd::AsFd, path::Path, process::Command};

use headwater_client::Record;
use tempfile::TempDir;

use crate::support::{Site, read_topic, run};

const VALUE_LEN: usize = 16_000;

/// More than the tail buffer holds.
const RECORDS: usize = 600;

/// A directory in which a command can have a file system of its own.
struct Place {
    directory: TempDir,
    /// The shell command that mounts it on `data`.
    mount: String,
}

impl Place {
    /// `None`, and the reason told, if nothing can be mounted here.
    fn new(name: &str, mount: &str) -> Option<Place> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for part in ["lower", "upper", "work", "data"] {
            std::fs::create_dir(directory.path().join(part)).unwrap();
        }
        let place = Place {
            mount: format!("cd '{}' && {mount} data", directory.path().display()),
            directory,
        };
        let reason = if rustix::process::geteuid().is_root() {
            let launcher = place.launcher();
            let tried = Command::new(&launcher[0]).args(&launcher[1..]).arg("true").output();
            match tried {
                Ok(output) if output.status.success() => return Some(place),
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            }
        } else {
            "only root may mount a file system".to_owned()
        };
        let is_required = std::env::var("HEADWATER_REQUIRE_ROOT_TESTS").is_ok_and(|value| value == "1");
        assert!(!is_required, "{name} has to run here, and cannot: {reason}");
        eprintln!("skipped: {name}: {reason}");
        None
    }

    fn overlay(name: &str) -> Option<Place> {
        let options = "lowerdir=lower,upperdir=upper,workdir=work";
        Place::new(name, &format!("mount -t overlay overlay -o {options}"))
    }

    /// A command that becomes the one that is put behind it.
    fn launcher(&self) -> Vec<String> {
        let script = format!("{} && exec \"$0\" \"$@\"", self.mount);
        ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned).into()
    }

    fn data(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    /// What the broker's own command line says there, and whether it was content.
    fn ask(&self, arguments: &[&str]) -> (bool, String) {
        let launcher = self.launcher();
        let output = Command::new(&launcher[0])
            .args(&launcher[1..])
            .arg(env!("CARGO_BIN_EXE_headwater-server"))
            .args(arguments)
            .args(["--data-dir", self.data().to_str().unwrap()])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// Drops what the page cache has of the files.
fn make_cold(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

#[test]
fn consumers_of_an_overlay_get_what_is_only_on_disk_and_the_log_says_once_what_it_lacks() {
    let name = "consumers_of_an_overlay_get_what_is_only_on_disk_and_the_log_says_once_what_it_lacks";
    let Some(place) = Place::overlay(name) else { return };
    run(async {
        let site = Site::at(&place.data())
            .launched_by(place.launcher())
            .cores(1)
            .set("cores.cold_read_bytes_max", "0");
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let producer = client.producer().build().await.unwrap();
        for number in 0..RECORDS {
            let value = format!("{number:0VALUE_LEN$}");
            drop(producer.send(Record::to("t").value(&value)).await.unwrap());
        }
        producer.flush().await.unwrap();
        for _ in 0..2 {
            make_cold(&place.directory.path().join("upper/t-0"));
            let records = read_topic(&client, "t").await;
            let numbers: Vec<usize> = records.concat().iter().map(|record| number_of(&record.value)).collect();
            assert_eq!(numbers, (0..RECORDS).collect::<Vec<_>>());
        }
        let said = broker
            .lines()
            .into_iter()
            .filter(|line| line.contains("RWF_NOWAIT"))
            .count();
        assert_eq!(said, 1);
        broker.stop();
    });
}

fn number_of(value: &[u8]) -> usize {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

#[test]
fn the_check_names_what_a_file_system_lacks() {
    let Some(place) = Place::overlay("the_check_names_what_a_file_system_lacks") else {
        return;
    };
    let (_, said) = place.ask(&["check"]);
    assert!(said.contains("RWF_NOWAIT: no, fallocate: yes"), "{said}");
}

#[test]
fn a_broker_does_not_start_where_direct_io_does_not_work_and_says_why() {
    let name = "a_broker_does_not_start_where_direct_io_does_not_work_and_says_why";
    let Some(place) = Place::new(name, "mount -t ramfs ramfs") else {
        return;
    };
    let (has_started, said) = place.ask(&["--listen", "127.0.0.1:0"]);
    assert!(!has_started);
    assert!(said.contains("O_DIRECT") && said.contains("ext4 or XFS"), "{said}");
}
