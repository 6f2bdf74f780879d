//! What it costs to look at every record of a batch before it is taken in, next to its checksum, by codec:
//! `cargo run --release -p headwater-protocol --example check_records`.

use std::time::{Duration, Instant};

use headwater_protocol::batch::{BatchBuilder, BatchError, BatchLimits, Compression, RecordBatch};
use headwater_protocol::id::Timestamp;

const DECOMPRESSED_SIZE_MAX: usize = 64 << 20;
const ROUNDS: usize = 30;

/// A batch of about so many bytes before it is compressed. Its values are like text: half of it repeats.
fn batch(compression: Compression, value_len: usize, size: usize) -> Result<Vec<u8>, BatchError> {
    let mut builder = BatchBuilder::new(compression, size);
    let mut state = 1_u64;
    while builder.len() + value_len + 100 < size {
        let mut value = Vec::with_capacity(value_len + 12);
        while value.len() < value_len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(format!("field:{:06}", state % 1_000_000).as_bytes());
        }
        value.truncate(value_len);
        let timestamp = Timestamp::new(1_700_000_000_000 + i64::from(builder.record_count()));
        builder.append(timestamp, Some(b"key12345"), Some(&value), &[])?;
    }
    Ok(builder.build().bytes().to_vec())
}

/// The shortest of several times, in microseconds.
fn shortest(mut work: impl FnMut() -> Result<(), BatchError>) -> Result<f64, BatchError> {
    let mut shortest = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        work()?;
        shortest = shortest.min(began.elapsed());
    }
    Ok(shortest.as_secs_f64() * 1e6)
}

fn main() -> Result<(), BatchError> {
    let limits = BatchLimits {
        batch_size_max: 64 << 20,
    };
    println!("bytes     value  codec      sent  records   crc us  records us  ns each");
    for size in [16 << 10, 1 << 20] {
        for value_len in [10, 100, 1000] {
            for compression in Compression::ALL {
                let bytes = batch(compression, value_len, size)?;
                let batch = RecordBatch::parse(&bytes, &limits)?;
                let crc = shortest(|| RecordBatch::parse(&bytes, &limits).map(|_| ()))?;
                let records = shortest(|| batch.validate_records(DECOMPRESSED_SIZE_MAX, false))?;
                let (sent, count) = (bytes.len(), batch.record_count());
                let each = records * 1e3 / f64::from(count);
                println!(
                    "{size:>7}  {value_len:>6}  {compression:<6}  {sent:>7}  {count:>7}  {crc:>7.1}  {records:>10.1}  {each:>7.1}"
                );
            }
        }
    }
    Ok(())
}
