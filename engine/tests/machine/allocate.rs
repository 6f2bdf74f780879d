//! File systems that lack what ext4 and XFS have.

use headwater_engine::ReadLimit;
use headwater_engine::disk::{Disk as _, SegmentFile as _};
use headwater_protocol::id::Offset;

use crate::{
    mounted::on_a_new_file_system,
    setting::{NOW, batch, on_an_executor, open},
};

#[test]
fn a_file_system_that_cannot_reserve_space_stores_and_serves_all_the_same() {
    let name = "a_file_system_that_cannot_reserve_space_stores_and_serves_all_the_same";
    on_a_new_file_system(name, &["-t", "ext3"], |directory| {
        let directory = directory.to_owned();
        on_an_executor(async move |disk| {
            let file = disk.open(&directory.join("file"), true).await.unwrap();
            file.allocate(0, 1 << 20).await.unwrap();
            let log = open(&disk, &directory).await;
            for size in [100, 100, 40_000, 600 << 10, 100] {
                let appended = log.append(&batch(size), NOW).unwrap();
                log.flush().await.unwrap();
                appended.durable.await.unwrap();
            }
            log.close().await.unwrap();
            let log = open(&disk, &directory).await;
            assert_eq!(log.offsets().durable, Offset::new(5));
            let range = log
                .fetch(Offset::ZERO, 10 << 20, ReadLimit::HighWatermark)
                .await
                .unwrap()
                .range
                .unwrap();
            assert_eq!(range.next_offset(), Offset::new(5));
            assert_eq!(log.read(&range).await.unwrap().len() as u64, range.len());
        });
    });
}
