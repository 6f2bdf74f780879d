//! Smaller batches of the records of one that is larger than its topic takes.

use bytes::Bytes;
use headwater_protocol::batch::{BatchBuilder, BatchError, Compression, HEADER_LEN, HeaderRef, RecordSet, RecordView};

use super::entry::{Content, Entry};

/// Bytes that a batch of this client can have at most before it is compressed.
const UNCOMPRESSED_SIZE_MAX: usize = 1 << 30;

/// Moves the records of `entry`, which was built as `bytes`, into parts that keep their order, deadline and numbers: at least
/// two, each of about what fits. None of a batch of one record, which is left as it is, unless compression alone is what makes
/// it too large.
pub(super) fn split(entry: &mut Entry, bytes: &Bytes, size_max: usize) -> Result<Vec<Entry>, BatchError> {
    let set = RecordSet::decode_without_crc(bytes, UNCOMPRESSED_SIZE_MAX)?;
    let mut compression = set.header().compression();
    if entry.records == 1 {
        let Some(record) = set.iter().next().transpose()? else {
            return Ok(Vec::new());
        };
        let size = BatchBuilder::lone_size(record.key, record.value, &headers_of(&record));
        if compression == Compression::None || size > size_max {
            return Ok(Vec::new());
        }
        compression = Compression::None;
    }
    let builders = pack(&set, compression, target(&set, bytes.len(), size_max)?)?;
    let Some(completer) = entry.completer.take() else {
        return Ok(Vec::new());
    };
    let mut firsts = Vec::with_capacity(builders.len());
    let mut first = 0;
    for builder in &builders {
        firsts.push(first);
        first += builder.record_count();
    }
    let parts = firsts.iter().zip(builders).zip(completer.split(&firsts));
    let part = |((&first, builder), completer): ((&u32, BatchBuilder), _)| Entry {
        number: entry.number + u64::from(first),
        attempts: entry.attempts,
        records: builder.record_count(),
        reserved: entry.reserved.split_off(builder.capacity()),
        content: Content::Open(builder),
        sequence: entry.sequence.map(|sequence| sequence.plus(first)),
        completer: Some(completer),
        opened_at: entry.opened_at,
        deadline: entry.deadline,
        sent_at: entry.sent_at,
        in_doubt: false,
        refused: None,
    };
    Ok(parts.map(part).collect())
}

/// What the records of a part may add up to, each with the most that it can take: what fits if all are of one kind, and never
/// more than half.
fn target(set: &RecordSet, size: usize, size_max: usize) -> Result<usize, BatchError> {
    let mut total = 0;
    for record in set {
        let record = record?;
        total += BatchBuilder::record_size_max(record.key, record.value, &headers_of(&record));
    }
    let fitting = if size > size_max {
        let (part, whole) = (size_max.saturating_sub(HEADER_LEN), size - HEADER_LEN);
        (total as u128 * part as u128 / whole as u128) as usize
    } else {
        usize::MAX
    };
    Ok(fitting.min(total / 2))
}

fn pack(set: &RecordSet, compression: Compression, target: usize) -> Result<Vec<BatchBuilder>, BatchError> {
    let mut builders: Vec<BatchBuilder> = Vec::new();
    let mut sum = 0;
    for record in set {
        let record = record?;
        let headers = headers_of(&record);
        let size = BatchBuilder::record_size_max(record.key, record.value, &headers);
        if builders.is_empty() || sum + size > target {
            builders.push(BatchBuilder::new(compression, HEADER_LEN + size));
            sum = 0;
        }
        sum += size;
        if let Some(open) = builders.last_mut() {
            open.append(record.timestamp, record.key, record.value, &headers)?;
        }
    }
    Ok(builders)
}

fn headers_of<'a>(record: &RecordView<'a>) -> Vec<HeaderRef<'a>> {
    record.headers.clone().collect()
}
