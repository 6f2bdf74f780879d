//! A log that a failing disk has fenced is opened anew in its place by the same process, as a restart would, and loses nothing.

use headwater_engine::{
    LogError,
    disk::{Disk as _, Fault, OpKind, SegmentFile as _, SimDisk},
};
use headwater_protocol::{
    error::ErrorCode,
    id::{Offset, Timestamp},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    NOON, Record, SimLog, append_durably, batch, directory, for_each_seed, ids, open, read_all, run, small_config,
};

const NOW: Timestamp = Timestamp::new(NOON);

/// Some durable records, and then some that a failure of this kind takes. Returns how many are durable.
async fn fenced(disk: &SimDisk, rng: &mut StdRng, log: &SimLog) -> u64 {
    for id in 0..rng.random_range(0..20) {
        append_durably(log, &batch(&[Record::new(id, 3000)])).await;
        if rng.random_bool(0.1) {
            log.maintain(NOW).await.unwrap();
        }
    }
    for kind in [OpKind::Sync, OpKind::Write, OpKind::WriteDurable] {
        disk.fail_randomly(kind, 1.0, Fault::InputOutput);
    }
    for id in 100..100 + rng.random_range(1..8) {
        log.append(&batch(&[Record::new(id, 3000)]), NOW).unwrap();
    }
    assert!(matches!(log.flush().await, Err(LogError::Fenced { .. })));
    log.offsets().durable.get()
}

#[test]
fn a_fenced_log_is_opened_anew_with_all_that_was_acknowledged_and_nothing_that_was_not() {
    let name = "a_fenced_log_is_opened_anew_with_all_that_was_acknowledged_and_nothing_that_was_not";
    for_each_seed(name, 300, |seed| {
        let disk = SimDisk::new(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let durable = run(&disk, seed, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            let durable = fenced(&disk, &mut rng, &log).await;
            disk.heal();
            log.give_way().await.unwrap();
            let error = log.append(&batch(&[Record::new(1, 20)]), NOW).unwrap_err();
            assert_eq!(error.code(), ErrorCode::NotLeaderOrFollower, "{error}");
            let (again, recovery) = open(&disk, &small_config()).await.unwrap();
            assert_eq!((recovery.scanned_bytes, recovery.cut), (0, None), "nothing is doubted");
            assert_eq!(again.offsets().end, Offset::new(durable));
            // The other is in its place: what the old one is still asked for changes nothing.
            log.maintain(NOW).await.unwrap();
            assert!(log.delete_records(Offset::new(durable)).await.is_err());
            for id in durable..durable + 5 {
                assert_eq!(append_durably(&again, &batch(&[Record::new(id, 3000)])).await, id);
            }
            durable
        });
        let disk = disk.crash(seed);
        run(&disk, seed, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            assert_eq!(ids(&read_all(&log).await), (0..durable + 5).collect::<Vec<_>>());
        });
    });
}

#[test]
fn a_fenced_log_whose_disk_still_fails_stays_as_it_is_and_can_be_read() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let mut rng = StdRng::seed_from_u64(1);
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        let durable = fenced(&disk, &mut rng, &log).await;
        for kind in [OpKind::Truncate, OpKind::ReplaceFile] {
            disk.fail_randomly(kind, 1.0, Fault::InputOutput);
            log.give_way().await.unwrap_err();
            disk.heal();
            assert!(matches!(log.fence(), Some(LogError::Fenced { .. })));
            assert_eq!(read_all(&log).await.len() as u64, durable);
        }
        disk.heal();
        log.give_way().await.unwrap();
        let (again, _) = open(&disk, &small_config()).await.unwrap();
        assert_eq!(read_all(&again).await.len() as u64, durable);
    });
}

#[test]
fn damage_below_what_was_acknowledged_is_named_and_never_cut_when_a_fenced_log_is_opened_anew() {
    let disk = SimDisk::new(3);
    run(&disk, 3, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        for id in 0..4 {
            append_durably(&log, &batch(&[Record::new(id, 3000)])).await;
        }
        disk.fail_randomly(OpKind::Sync, 1.0, Fault::InputOutput);
        disk.fail_randomly(OpKind::WriteDurable, 1.0, Fault::InputOutput);
        log.append(&batch(&[Record::new(9, 3000)]), NOW).unwrap();
        log.flush().await.unwrap_err();
        disk.heal();
        log.give_way().await.unwrap();
        // The disk loses half of it meanwhile: never acknowledged records would be cut there.
        let file = disk
            .open(&directory().join("00000000000000000000.log"), false)
            .await
            .unwrap();
        file.truncate(5000).await.unwrap();
        let error = open(&disk, &small_config()).await.err().unwrap();
        assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
        assert_eq!(file.size().await.unwrap(), 5000);
    });
}
