//! A durable log inside a program of your own: append, make durable, read back. Run it twice: the records are kept.
//!
//! `cargo run --release -p headwater-engine --example embedded -- ./embedded-log`

use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};
use headwater_engine::{Log, LogConfig, ReadLimit, TailMemory, disk::DirectDisk};
use headwater_protocol::{
    batch::{BatchBuilder, Compression, RecordSet},
    id::Timestamp,
};

async fn run(directory: String) -> Result<(), Box<dyn std::error::Error>> {
    let memory = TailMemory::new(64 << 20);
    let (log, recovery) = Log::open(DirectDisk::new()?, directory.into(), LogConfig::default(), memory).await?;
    println!("opened at {:?}, {recovery:?}", log.offsets());

    let mut batch = BatchBuilder::new(Compression::None, 1024);
    batch.append(Timestamp::now(), Some(b"greeting"), Some(b"hello, log"), &[])?;
    let appended = log.append(batch.build().bytes(), Timestamp::now())?;
    log.flush().await?;
    appended.durable.await?;
    println!("record {} is on stable storage", appended.base_offset);

    let mut offset = log.offsets().start;
    while let Some(range) = log.fetch(offset, 1 << 20, ReadLimit::HighWatermark).await?.range {
        let mut bytes = Bytes::from(log.read(&range).await?);
        while !bytes.is_empty() {
            let records = RecordSet::decode(&bytes, 1 << 20)?;
            for record in &records {
                let record = record?;
                println!("{}: {:?}", record.offset, record.value.map(String::from_utf8_lossy));
            }
            offset = records.header().next_offset();
            bytes = bytes.split_off(records.header().size());
        }
    }
    log.close().await?;
    Ok(())
}

fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "embedded-log".to_owned());
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .make()
        .expect("io_uring is available");
    executor.run(run(directory)).expect("the log works");
}
