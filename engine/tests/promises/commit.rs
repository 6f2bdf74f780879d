#[test]
fn dbg() {
    use crate::support::*;
    use headwater_engine::{disk::*, *};
    use headwater_protocol::id::Timestamp;
    let disk = SimDisk::new(0);
    run(&disk, 0, async {
        let config = LogConfig {
            segment_size_bytes: 4096,
            segment_age_ms: 10000,
            ..small_config()
        };
        let (log, _) = open(&disk, &config).await.unwrap();
        log.append(&batch(&[Record::new(1, 8)]), Timestamp::new(NOON)).unwrap();
        dbg!(log.offsets());
        log.maintain(Timestamp::new(NOON + 10000)).await.unwrap();
        dbg!(log.offsets());
        log.close().await.unwrap();
        dbg!(log.offsets());
        dbg!(disk.list(&directory()).await.unwrap());
        println!(
            "{}",
            String::from_utf8(disk.read_file(&directory().join("checkpoint")).await.unwrap()).unwrap()
        );
        let (log, r) = open(&disk, &config).await.unwrap();
        dbg!(log.offsets(), r, log);
    });
}
