//! A partition's directory says whose it is before it holds a record, whatever stops the machine.

use headwater_engine::{
    LogError, Owner,
    disk::{Directory as _, Fault, Halt, OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::id::{PartitionIndex, TopicId};

use crate::support::{Record, append_durably, batch, directory, open, run, small_config};

fn owner(number: i32) -> Owner {
    Owner {
        topic: TopicId::random(),
        partition: PartitionIndex::new(number),
    }
}

async fn claim(disk: &SimDisk, owner: Owner) -> Result<bool, LogError> {
    let entries = disk.list(&directory()).await.unwrap();
    owner.claim(disk, &directory(), &entries).await
}

async fn begin(disk: &SimDisk, owner: Owner) {
    disk.create_dir(&directory()).await.unwrap();
    claim(disk, owner).await.unwrap();
    let (log, _) = open(disk, &small_config()).await.unwrap();
    append_durably(&log, &batch(&[Record::new(1, 100)])).await;
}

#[test]
fn no_record_is_in_a_directory_that_does_not_say_whose_it_is() {
    let owner = owner(3);
    for seed in 0..20 {
        for change in 0.. {
            let disk = SimDisk::new(seed);
            disk.crash_at(change);
            let begun = SimExecutor::new(&disk, seed).block_on(begin(&disk, owner));
            let left = disk.crash(seed);
            run(&left, seed, async {
                let entries = left.list(&directory()).await.unwrap_or_default();
                let has_records = entries.iter().any(|entry| entry.name.strip_suffix(".log").is_some());
                let found = Owner::read(&left, &directory()).await.unwrap();
                assert!(
                    found == Some(owner) || (found.is_none() && !has_records),
                    "{found:?} {entries:?}"
                );
                begin(&left, owner).await;
            });
            match begun {
                Err(Halt::Crashed) => {}
                Err(Halt::Deadlock) => panic!("deadlock"),
                Ok(()) => break,
            }
        }
    }
}

#[test]
fn what_is_anothers_is_refused_and_left_and_what_is_nobodys_is_taken_over() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (first, second) = (owner(0), owner(0));
        begin(&disk, first).await;
        let before = disk.list(&directory()).await.unwrap();
        let elsewhere = Owner {
            partition: PartitionIndex::new(1),
            ..first
        };
        for other in [second, elsewhere] {
            let refused = claim(&disk, other).await.unwrap_err();
            assert!(matches!(refused, LogError::Foreign { found, wanted, .. } if found == first && wanted == other));
        }
        assert_eq!(disk.list(&directory()).await.unwrap(), before);
        // As directories were before; a full disk does not take its records away.
        disk.remove_file(&directory().join("partition")).await.unwrap();
        disk.fail_nth(OpKind::ReplaceFile, 0, Fault::StorageFull);
        claim(&disk, second).await.unwrap();
        claim(&disk, second).await.unwrap();
        assert_eq!(Owner::read(&disk, &directory()).await.unwrap(), Some(second));
    });
}
