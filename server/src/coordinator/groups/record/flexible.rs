//! Fields in Kafka's flexible encoding (KIP-482): lengths are variable, one more than they are, and 0 for null; fields that came later
//! have tags. Source: the Kafka protocol guide, "Protocol Primitive Types".

use headwater_protocol::{classic::ClassicError, id::TopicId};
use uuid::Uuid;

use crate::model::consumer::Share;

/// Appends fields.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Out(Vec<u8>);

impl Out {
    /// A value of version 0.
    pub(in crate::coordinator) fn value() -> Out {
        Out(vec![0, 0])
    }

    pub(in crate::coordinator) fn i8(&mut self, value: i8) -> &mut Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(in crate::coordinator) fn i16(&mut self, value: i16) -> &mut Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(in crate::coordinator) fn i32(&mut self, value: i32) -> &mut Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(in crate::coordinator) fn i64(&mut self, value: i64) -> &mut Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn unsigned(&mut self, mut value: usize) -> &mut Out {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// The number of elements that follow.
    pub(in crate::coordinator) fn count(&mut self, count: usize) -> &mut Out {
        self.unsigned(count + 1)
    }

    pub(in crate::coordinator) fn bytes(&mut self, bytes: &[u8]) -> &mut Out {
        self.count(bytes.len()).0.extend(bytes);
        self
    }

    pub(in crate::coordinator) fn string(&mut self, text: &str) -> &mut Out {
        self.bytes(text.as_bytes())
    }

    pub(in crate::coordinator) fn nullable(&mut self, text: Option<&str>) -> &mut Out {
        match text {
            Some(text) => self.string(text),
            None => self.unsigned(0),
        }
    }

    /// Partitions by topic.
    pub(in crate::coordinator) fn share(&mut self, share: &Share) -> &mut Out {
        let spots: Vec<_> = share.iter().copied().collect();
        let topics: Vec<_> = spots.chunk_by(|(one, _), (other, _)| one == other).collect();
        self.count(topics.len());
        for topic in topics {
            self.0.extend(topic[0].0.as_uuid().as_bytes());
            self.count(topic.len());
            for (_, partition) in topic {
                self.i32(*partition);
            }
            self.no_tags();
        }
        self
    }

    pub(in crate::coordinator) fn no_tags(&mut self) -> &mut Out {
        self.unsigned(0)
    }

    /// The only tag, with its field.
    pub(in crate::coordinator) fn tag(&mut self, number: usize, field: &Out) -> &mut Out {
        self.unsigned(1).unsigned(number).unsigned(field.0.len());
        self.0.extend(&field.0);
        self
    }

    /// Tags with their fields, in the order of their numbers.
    pub(in crate::coordinator) fn tags(&mut self, tags: &[(usize, Out)]) -> &mut Out {
        self.unsigned(tags.len());
        for (number, field) in tags {
            self.unsigned(*number).unsigned(field.0.len());
            self.0.extend(&field.0);
        }
        self
    }

    pub(in crate::coordinator) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Takes fields from the front of a slice.
#[derive(Debug, Clone)]
pub(in crate::coordinator) struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    /// A value, which must be of version 0.
    pub(in crate::coordinator) fn value(bytes: &'a [u8], what: &'static str) -> Result<In<'a>, ClassicError> {
        let mut fields = In(bytes);
        match i16::from_be_bytes(fields.array()?) {
            0 => Ok(fields),
            version => Err(ClassicError::Version { what, version }),
        }
    }

    /// What follows the version of a value.
    pub(in crate::coordinator) fn fields(bytes: &'a [u8]) -> In<'a> {
        In(bytes)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ClassicError> {
        let have = self.0.len();
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(ClassicError::Truncated { need: len, have })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ClassicError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(in crate::coordinator) fn i8(&mut self) -> Result<i8, ClassicError> {
        self.array().map(i8::from_be_bytes)
    }

    pub(in crate::coordinator) fn i16(&mut self) -> Result<i16, ClassicError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(in crate::coordinator) fn i32(&mut self) -> Result<i32, ClassicError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(in crate::coordinator) fn i64(&mut self) -> Result<i64, ClassicError> {
        self.array().map(i64::from_be_bytes)
    }

    fn unsigned(&mut self) -> Result<usize, ClassicError> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ClassicError::Length { length: -1 })
    }

    /// The number of elements, which are at least one byte each.
    pub(in crate::coordinator) fn count(&mut self) -> Result<usize, ClassicError> {
        let null = ClassicError::Length { length: -1 };
        let need = self.unsigned()?.checked_sub(1).ok_or(null)?;
        let have = self.0.len();
        if need > have {
            return Err(ClassicError::Truncated { need, have });
        }
        Ok(need)
    }

    /// The same of a list that may be null.
    pub(in crate::coordinator) fn nullable_count(&mut self) -> Result<Option<usize>, ClassicError> {
        if self.0.first() == Some(&0) {
            self.take(1)?;
            return Ok(None);
        }
        self.count().map(Some)
    }

    pub(in crate::coordinator) fn nullable(&mut self) -> Result<Option<&'a str>, ClassicError> {
        match self.unsigned()?.checked_sub(1) {
            Some(len) => Ok(Some(std::str::from_utf8(self.take(len)?)?)),
            None => Ok(None),
        }
    }

    pub(in crate::coordinator) fn string(&mut self) -> Result<&'a str, ClassicError> {
        self.nullable()?.ok_or(ClassicError::Length { length: -1 })
    }

    pub(in crate::coordinator) fn bytes(&mut self) -> Result<&'a [u8], ClassicError> {
        let len = self.count()?;
        self.take(len)
    }

    pub(in crate::coordinator) fn share(&mut self) -> Result<Share, ClassicError> {
        let mut share = Share::new();
        for _ in 0..self.count()? {
            let topic = TopicId::new(Uuid::from_bytes(self.array()?));
            for _ in 0..self.count()? {
                share.insert((topic, self.i32()?));
            }
            // Since when each is assigned: nothing here goes by it.
            self.tag(usize::MAX)?;
        }
        Ok(share)
    }

    /// The field with this tag, if it is there. All others are passed over.
    pub(in crate::coordinator) fn tag(&mut self, number: usize) -> Result<Option<In<'a>>, ClassicError> {
        let mut found = None;
        for _ in 0..self.unsigned()? {
            let (tag, len) = (self.unsigned()?, self.unsigned()?);
            let field = In(self.take(len)?);
            if tag == number {
                found = Some(field);
            }
        }
        Ok(found)
    }
}
