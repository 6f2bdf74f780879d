//! Errands and their answers as bytes. What another broker says is read with the same care as what clients say.
//!
//! ```text
//! errands  count i32, of each: kind i8
//!          0 mark: producer i64, epoch i16, commits i8, coordinator epoch i32, raised i8, partitions: topic id in two i64, index i32
//!          1 add:  transactional id, producer i64, epoch i16, verifies i8, places: topic string, index i32
//! answers  count i32, of each: code i16, codes: i16
//! ```

use headwater_protocol::{
    classic::{ClassicError, Reader, Writer},
    error::ErrorCode,
    id::{PartitionIndex, TopicId},
};
use uuid::Uuid;

use super::AT_ONCE;
use crate::{
    core::errands::Done,
    model::{
        id::PartitionId,
        transaction::{Adding, End, Errand, Marker, Place, Producer, TransactionalId},
    },
};

const MARK: i8 = 0;
const ADD: i8 = 1;

pub(super) fn write_errands(errands: &[&Errand]) -> Vec<u8> {
    let mut out = Writer::new();
    out.count(errands.len());
    for errand in errands {
        match errand {
            Errand::Mark(marker, ids) => {
                out.i8(MARK);
                out.i64(marker.producer.id.get()).i16(marker.producer.epoch.get());
                out.i8(i8::from(marker.end == End::Commit));
                out.i32(marker.coordinator_epoch).i8(i8::from(marker.is_raised));
                out.count(ids.len());
                for id in ids {
                    let (high, low) = id.topic.as_uuid().as_u64_pair();
                    out.i64(high.cast_signed()).i64(low.cast_signed());
                    out.i32(id.index.get());
                }
            }
            Errand::Add {
                id,
                producer,
                places,
                adding,
            } => {
                out.i8(ADD).string(id.as_str());
                out.i64(producer.id.get()).i16(producer.epoch.get());
                out.i8(i8::from(*adding == Adding::Verify));
                out.count(places.len());
                for (topic, index) in places {
                    out.string(topic).i32(*index);
                }
            }
        }
    }
    out.into_bytes()
}

pub(super) fn read_errands(bytes: &[u8]) -> Result<Vec<Errand>, ClassicError> {
    let mut fields = Reader::new(bytes);
    let count = fields.count(1)?;
    if count > AT_ONCE {
        let (need, have) = (count, AT_ONCE);
        return Err(ClassicError::Truncated { need, have });
    }
    (0..count).map(|_| read_errand(&mut fields)).collect()
}

fn read_errand(fields: &mut Reader<'_>) -> Result<Errand, ClassicError> {
    match fields.i8()? {
        MARK => {
            let marker = Marker {
                producer: Producer::new(fields.i64()?, fields.i16()?),
                end: if fields.i8()? == 0 { End::Abort } else { End::Commit },
                coordinator_epoch: fields.i32()?,
                is_raised: fields.i8()? != 0,
            };
            let count = fields.count(20)?;
            let ids = (0..count).map(|_| {
                let (high, low) = (fields.i64()?.cast_unsigned(), fields.i64()?.cast_unsigned());
                let length = fields.i32()?;
                let index = PartitionIndex::try_from(length).map_err(|_negative| ClassicError::Length { length })?;
                let topic = TopicId::new(Uuid::from_u64_pair(high, low));
                Ok(PartitionId { topic, index })
            });
            let ids = ids.collect::<Result<Vec<_>, ClassicError>>()?;
            Ok(Errand::Mark(marker, ids))
        }
        ADD => {
            let id = TransactionalId::new(fields.string()?);
            let producer = Producer::new(fields.i64()?, fields.i16()?);
            let adding = if fields.i8()? == 0 { Adding::Add } else { Adding::Verify };
            let count = fields.count(6)?;
            let places = (0..count).map(|_| Ok((fields.string()?.to_owned(), fields.i32()?)));
            Ok(Errand::Add {
                id,
                producer,
                places: places.collect::<Result<Vec<Place>, ClassicError>>()?,
                adding,
            })
        }
        kind => {
            let what = "an errand";
            Err(ClassicError::Version {
                what,
                version: kind.into(),
            })
        }
    }
}

pub(super) fn write_answers(answers: &[Done]) -> Vec<u8> {
    let mut out = Writer::new();
    out.count(answers.len());
    for answer in answers {
        match answer {
            Ok(codes) => {
                out.i16(0).count(codes.len());
                for code in codes {
                    out.i16(code.as_i16());
                }
            }
            Err(code) => {
                out.i16(code.as_i16()).count(0);
            }
        }
    }
    out.into_bytes()
}

pub(super) fn read_answers(bytes: &[u8], expected: usize) -> Result<Vec<Done>, ClassicError> {
    let mut fields = Reader::new(bytes);
    let count = fields.count(6)?;
    if count != expected {
        let (need, have) = (expected, count);
        return Err(ClassicError::Truncated { need, have });
    }
    let answers = (0..count).map(|_| {
        let code = ErrorCode::from_i16(fields.i16()?);
        let count = fields.count(2)?;
        let codes = (0..count).map(|_| fields.i16().map(ErrorCode::from_i16));
        let codes = codes.collect::<Result<Vec<_>, ClassicError>>()?;
        Ok(if code.is_none() { Ok(codes) } else { Err(code) })
    });
    answers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errands_and_answers_read_back_and_nothing_that_is_cut_does() {
        let marker = Marker {
            producer: Producer::new(7, 3),
            end: End::Commit,
            coordinator_epoch: 5,
            is_raised: true,
        };
        let ids = vec![PartitionId::of_test(0), PartitionId::of_test(9)];
        let errands = [
            Errand::Mark(marker, ids),
            Errand::Add {
                id: TransactionalId::new("shop"),
                producer: Producer::new(1, 2),
                places: vec![("t".to_owned(), 4)],
                adding: Adding::Verify,
            },
        ];
        let bytes = write_errands(&errands.each_ref());
        let read = read_errands(&bytes).unwrap();
        assert_eq!(format!("{read:?}"), format!("{errands:?}"));
        for len in 0..bytes.len() {
            assert!(read_errands(&bytes[..len]).is_err(), "{len}");
        }
        let answers = [
            Ok(vec![ErrorCode::None, ErrorCode::ProducerFenced]),
            Err(ErrorCode::NotCoordinator),
        ];
        let bytes = write_answers(&answers);
        assert_eq!(read_answers(&bytes, 2).unwrap(), answers);
        assert!(read_answers(&bytes, 3).is_err());
        for len in 0..bytes.len() {
            assert!(read_answers(&bytes[..len], 2).is_err(), "{len}");
        }
    }
}
