//! Readers that stop at an end, and readers that follow, on topics that change under them.

use std::io::Read as _;
use std::time::Duration;

use headwater_client::{Client, Offset, PartitionIndex};

use crate::support::{Lines, Site, end_of, pause};

const P0: PartitionIndex = PartitionIndex::new(0);

fn on_tokio<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

#[test]
fn reading_ends_at_offsets_that_compaction_has_emptied_and_says_how_many_there_were() {
    let site = Site::with(&[
        ("compaction.check_interval_ms", "10ms"),
        ("log.retention_check_interval_ms", "10ms"),
    ]);
    let create = ["topic", "create", "t", "-p", "1", "--config", "cleanup.policy=compact"];
    let soon = ["segment.ms=100", "delete.retention.ms=0", "min.cleanable.dirty.ratio=0"];
    let soon: Vec<_> = soon.iter().flat_map(|setting| ["--config", setting]).collect();
    site.ok(&[&create, &soon[..]].concat());
    // The last records delete what was there, and go in their turn.
    let lines = b"kept:1\na:1\nb:1\na:\nb:\n";
    site.feed(&["produce", "t", "-k", ":", "--empty-as-null"], lines)
        .ok(&[]);
    let read = || end_of(site.spawn(&["consume", "t", "-k", ":"]));
    let emptied = loop {
        let read = read();
        assert_eq!(read.code, Some(0), "{}", read.err);
        if read.out == b"kept:1\n" {
            break read;
        }
        pause();
    };
    let note = "note: 4 offsets passed that hold no record, as after compaction: 4 of partition 0\n";
    assert_eq!(emptied.err, note);
    let counted = end_of(site.spawn(&["consume", "t", "--from-offset", "3"]));
    assert!(
        counted.err.starts_with("note: 2 offsets") && counted.out.is_empty(),
        "{}",
        counted.err
    );
}

#[test]
fn reading_ends_when_what_is_left_is_deleted_and_says_how_many_were_not_read() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    // More than a client fetches ahead.
    let mut lines = vec![b'x'; 96 << 20];
    lines.iter_mut().skip(1023).step_by(1024).for_each(|byte| *byte = b'\n');
    let count = lines.len() as u64 / 1024;
    site.feed(&["produce", "t"], &lines).ok(&[]);
    let mut slow = site.spawn(&["consume", "t"]);
    // It has begun, and nobody reads what it prints.
    let mut first = [0; 1024];
    let out = slow.stdout.as_mut().unwrap();
    out.read_exact(&mut first).unwrap();
    on_tokio(async {
        let client = Client::connect(site.address()).await.unwrap();
        let start = client.admin().delete_records("t", P0, None).await.unwrap();
        assert_eq!(start, Offset::new(count));
    });
    let read = end_of(slow);
    assert_eq!(read.code, Some(0), "{}", read.err);
    let printed = 1 + read.out.len() as u64 / 1024;
    assert!(printed < count, "it was not slow");
    let lost = count - printed;
    let note = format!("note: {lost} offsets deleted before they could be read: {lost} of partition 0\n");
    assert_eq!(read.err, note);
}

#[test]
fn following_reads_partitions_that_the_topic_gets_later_from_their_first_record() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    site.feed(&["produce", "t"], b"before\n").ok(&[]);
    for start in ["--from-beginning", "--from-end"] {
        let partitions = site.json(&["topic", "describe", "t"])[0]["partitions"]
            .as_array()
            .unwrap()
            .len();
        let mut reader = site.spawn(&["consume", "t", "--follow", start, "--format", "%p %v\\n"]);
        let lines = Lines::of(reader.stdout.take());
        // Until it has begun, wherever that is.
        while !lines.any_within(Duration::from_millis(100)) {
            site.feed(&["produce", "t", "-p", "0"], b"before\n").ok(&[]);
        }
        site.ok(&["topic", "alter", "t", "--partitions", &(partitions + 1).to_string()]);
        let new = partitions.to_string();
        site.feed(&["produce", "t", "-p", &new], b"first\nsecond\n").ok(&[]);
        let found = std::iter::repeat_with(|| lines.next()).filter(|line| line.starts_with(&new));
        assert_eq!(
            found.take(2).collect::<Vec<_>>(),
            [format!("{new} first"), format!("{new} second")]
        );
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
}

#[test]
fn following_goes_on_in_a_topic_that_was_made_anew_and_says_so() {
    let site = Site::start();
    site.ok(&["topic", "create", "t", "-p", "1"]);
    site.feed(&["produce", "t"], b"old\n").ok(&[]);
    let mut reader = site.spawn(&["consume", "t", "--follow", "--count", "2"]);
    let lines = Lines::of(reader.stdout.take());
    assert_eq!(lines.next(), "old");
    site.ok(&["topic", "delete", "t", "--yes"]);
    site.ok(&["topic", "create", "t", "-p", "1"]);
    site.feed(&["produce", "t"], b"new\n").ok(&[]);
    assert_eq!(lines.next(), "new");
    let said = end_of(reader);
    let note = "note: topic t was deleted and created anew; partition 0 is read from offset 0\n";
    assert_eq!((said.code, &*said.err), (Some(0), note));
}
