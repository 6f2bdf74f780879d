//! A full disk refuses records and nothing else, and takes them again when there is room.
//!
//! The disk is a small file system in a file, mounted as a loop device, which takes the rights of root. Without them, or
//! without such devices, the tests say so and prove nothing; the engine's own tests fill a simulated disk.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output},
};

use headwater_client::{ErrorCode, NewTopic, Record};
use tempfile::TempDir;

use crate::support::{Kind, Load, Raw, Site, batch, check, fetch, list_offsets, produce, read_topic, run, values};

const KIND: Kind = Kind {
    topic: "t",
    partitions: 2,
    value_lens: &[4_000],
};

const DISK_BYTES: u64 = 64 << 20;

/// A mounted file system of its own; unmounted when it is dropped.
struct SmallDisk {
    mount: PathBuf,
    _temporary: TempDir,
}

impl SmallDisk {
    /// `None`, and a sentence on why, where that is not possible.
    fn new() -> Option<SmallDisk> {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, mount) = (temporary.path().join("image"), temporary.path().join("mount"));
        fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir(&mount).unwrap();
        // No blocks reserved for root: the broker may be root, and would not notice that the disk is full.
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image)
            .output();
        let mounted = made.and_then(|made| succeeded(made)?.args(["-o", "loop"]).arg(&image).arg(&mount).output());
        if let Err(error) = mounted.and_then(succeeded) {
            // Past the harness, which would keep it to itself.
            let reason = format!("disk_full is SKIPPED: no small file system can be mounted here: {error}\n");
            std::io::stderr().write_all(reason.as_bytes()).unwrap();
            return None;
        }
        Some(SmallDisk {
            mount,
            _temporary: temporary,
        })
    }

    fn site(&self) -> Site {
        Site::at(&self.mount.join("data"))
            .set("log.segment_size_bytes", "2MiB")
            .set("log.checkpoint_interval_ms", "50ms")
    }

    /// A file that takes all space but so many bytes.
    fn fill(&self, but_bytes: u64) -> Ballast {
        let number = fs::read_dir(&self.mount).unwrap().count();
        let path = self.mount.join(format!("ballast-{number}"));
        let file = fs::File::create(&path).unwrap();
        let mut len = 0;
        // Smaller and smaller pieces: the file's own bookkeeping takes space too, and the broker gives some back.
        for piece in [1 << 20, 64 << 10, 4 << 10] {
            while self.free_bytes() >= but_bytes + piece
                && rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), len, piece).is_ok()
            {
                len += piece;
            }
        }
        Ballast { path }
    }

    fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.mount).unwrap();
        found.f_bavail * found.f_frsize
    }
}

/// What the next command is built from: `mount`, if this one has succeeded.
fn succeeded(output: Output) -> std::io::Result<Command> {
    if output.status.success() {
        return Ok(Command::new("mount"));
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(std::io::Error::other(reason))
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The broker is gone; if anything else still looks at it, the mount goes as soon as that does.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.mount).output();
        if let Err(error) = unmounted.and_then(succeeded) {
            eprintln!("{} stays mounted: {error}", self.mount.display());
        }
    }
}

struct Ballast {
    path: PathBuf,
}

impl Ballast {
    fn free(self) {
        fs::remove_file(self.path).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_records_by_name_serves_what_it_has_and_takes_more_when_there_is_room() {
    let Some(disk) = SmallDisk::new() else { return };
    run(async {
        let site = disk.site().cores(1);
        let mut broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        let mut stored = 0_u64;
        for restarted in [false, true] {
            let ballast = disk.fill(6 << 20);
            let refused = loop {
                let payload = batch(&[&[stored.to_le_bytes(); 1_000].concat()]);
                let response = raw.call(&produce(topic, 0), &payload).await.produce();
                if response.error != 0 {
                    break response;
                }
                assert_eq!(response.base_offset as u64, stored);
                stored += 1;
            };
            assert_eq!(ErrorCode::from_i16(refused.error), ErrorCode::KafkaStorageError);
            assert!(ErrorCode::from_i16(refused.error).is_retriable());
            assert!(refused.message.unwrap().contains("no space"));
            if restarted {
                broker.kill();
                broker = site.start();
                raw = Raw::connect(site.address()).await;
            }
            // Nothing of what was refused, all of what was acknowledged.
            let listed = raw.call(&list_offsets(topic, &[(0, -1)]), &[]).await.list_offsets();
            assert_eq!(listed.partitions.unwrap()[0].offset as u64, stored);
            for offset in (0..stored).step_by(50) {
                let reply = raw.call(&fetch(topic, &[(0, offset as i64)], 0, 1), &[]).await;
                assert_eq!(values(&reply.payload)[0][..8], offset.to_le_bytes());
            }
            ballast.free();
            let response = raw
                .call(&produce(topic, 0), &batch(&[&[stored.to_le_bytes(); 1_000].concat()]))
                .await
                .produce();
            assert_eq!((response.error, response.base_offset as u64), (0, stored));
            stored += 1;
        }
        assert_eq!(read_topic(&client, "t").await[0].len() as u64, stored);
        broker.stop();
    });
}

#[test]
fn producers_go_on_by_themselves_after_a_full_disk_has_room_again_and_nothing_is_lost_or_doubled() {
    let Some(disk) = SmallDisk::new() else { return };
    run(async {
        let site = disk.site();
        let mut broker = site.start();
        let checker = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let load = Load::start([site.client().await, site.client().await], KIND, 0).await;
        for crash in [false, true, false] {
            let ballast = disk.fill(4 << 20);
            let logged = broker.lines().len();
            load.allow(3_000);
            broker.await_line_after(logged, "records were refused");
            let acknowledged = load.ledger.acknowledged();
            check(&acknowledged, &read_topic(&checker, KIND.topic).await);
            if crash {
                broker.kill();
                broker = site.start();
                check(&acknowledged, &read_topic(&checker, KIND.topic).await);
            }
            ballast.free();
            let goal = load.ledger.count() + 1_000;
            load.ledger.await_count(goal).await;
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&checker, KIND.topic).await);
        broker.stop();
    });
}

#[test]
fn a_topic_can_be_deleted_to_make_room_on_a_full_disk() {
    let Some(disk) = SmallDisk::new() else { return };
    run(async {
        let site = disk.site();
        let broker = site.start();
        let client = site.client_with_topic("large", 1).await;
        let new = NewTopic::new("small").partitions(1);
        client.admin().create_topic(new).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        for _ in 0..200 {
            drop(
                producer
                    .send(Record::to("large").value(&vec![0; 20_000]))
                    .await
                    .unwrap(),
            );
        }
        producer.flush().await.unwrap();
        let mut ballasts = vec![disk.fill(0)];
        // Sealing gives a little back at times, until there is no room for another.
        for number in 0.. {
            let another = NewTopic::new(format!("another-{number}"));
            if client.admin().create_topic(another).await.is_err() {
                break;
            }
            ballasts.push(disk.fill(0));
        }
        client.admin().delete_topic("large").await.unwrap();
        drop(
            producer
                .send(Record::to("small").value("now there is room"))
                .await
                .unwrap(),
        );
        producer.close().await.unwrap();
        ballasts.into_iter().for_each(Ballast::free);
        broker.stop();
    });
}

#[test]
fn retention_makes_room_on_a_full_disk_by_itself() {
    let Some(disk) = SmallDisk::new() else { return };
    run(async {
        let site = disk.site().set("log.retention_check_interval_ms", "50ms");
        let broker = site.start();
        let client = site.client().await;
        let new = NewTopic::new("t").config("segment.bytes", 1 << 20);
        client.admin().create_topic(new).await.unwrap();
        let producer = client.producer().batch_bytes(64 << 10).build().await.unwrap();
        let value = |number: u64| [number.to_le_bytes(); 500].concat();
        let first_ballast = disk.fill(12 << 20);
        for number in 0..2_000 {
            drop(producer.send(Record::to("t").value(&value(number))).await.unwrap());
        }
        producer.flush().await.unwrap();
        // Not even a checkpoint finds room now; and only the next broker knows that less is to be kept.
        broker.kill();
        let last_ballast = disk.fill(0);
        let site = site.set("log.retention_bytes", "3MiB");
        let broker = site.start();
        // Several times what fits; producers wait until there is room.
        let mut deliveries = Vec::new();
        for number in 2_000..7_000 {
            deliveries.push(producer.send(Record::to("t").value(&value(number))).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        first_ballast.free();
        last_ballast.free();
        broker.stop();
    });
}
