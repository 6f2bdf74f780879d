//! A log on the production disk, and the executor that it needs.

use std::{future::Future, path::Path};

use headwater_engine::{Log, LogConfig, Memory, TailMemory, disk::DirectDisk};
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    id::Timestamp,
};

pub const NOW: Timestamp = Timestamp::new(1_700_000_000_000);

/// Runs a test with a disk on an executor of its own, which sees the mounts of this thread.
pub fn on_an_executor<F: Future<Output = ()> + 'static>(test: impl FnOnce(DirectDisk) -> F + Send + 'static) {
    let running = glommio::LocalExecutorBuilder::default().spawn(|| async {
        let disk = DirectDisk::new().unwrap();
        test(disk.clone()).await;
        disk.ring().close().await;
    });
    running.unwrap().join().unwrap();
}

pub async fn open(disk: &DirectDisk, directory: &Path) -> Log<DirectDisk> {
    let config = LogConfig {
        segment_size_bytes: 16 << 20,
        ..LogConfig::default()
    };
    let memory = Memory::from(TailMemory::new(16 << 20));
    Log::open(disk.clone(), directory.join("log"), config, memory)
        .await
        .unwrap()
        .0
}

/// One batch of one record of so many bytes.
pub fn batch(size: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, size);
    builder.append(NOW, None, Some(&vec![7; size]), &[]).unwrap();
    builder.build().bytes().to_vec()
}
