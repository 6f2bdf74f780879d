//! Fields in Kafka's plain ("non-flexible") encoding: big-endian numbers, strings with a 16-bit length, bytes and arrays
//! with a 32-bit one; length -1 is null. Source: the Kafka protocol guide, "Protocol Primitive Types".
//!
//! [`Reader`] takes untrusted bytes: a length is compared with what is left before anything is allocated. [`Writer`] cuts
//! nothing; what is too long for its length field is a bug of the caller.

use std::str::Utf8Error;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassicError {
    /// A field needs more bytes than are left.
    #[error("a field of {need} bytes, and {have} are left")]
    Truncated {
        /// Bytes that the field needs.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// A length is negative where there is no null.
    #[error("the length {length} where null is not allowed")]
    Length {
        /// The length.
        length: i32,
    },
    /// A string is not UTF-8.
    #[error(transparent)]
    Utf8(#[from] Utf8Error),
    /// A version that is not known.
    #[error("version {version} of {what} is not known")]
    Version {
        /// Of which structure.
        what: &'static str,
        /// The version.
        version: i16,
    },
}

/// Takes fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that are left.
    pub const fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ClassicError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ClassicError::Truncated {
            need: len,
            have: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ClassicError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// An 8-bit number.
    pub fn i8(&mut self) -> Result<i8, ClassicError> {
        self.array().map(i8::from_be_bytes)
    }

    /// A 16-bit number.
    pub fn i16(&mut self) -> Result<i16, ClassicError> {
        self.array().map(i16::from_be_bytes)
    }

    /// A 32-bit number.
    pub fn i32(&mut self) -> Result<i32, ClassicError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A 64-bit number.
    pub fn i64(&mut self) -> Result<i64, ClassicError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A string that may be null.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, ClassicError> {
        let length = i32::from(self.i16()?);
        let Some(len) = nullable(length)? else { return Ok(None) };
        Ok(Some(std::str::from_utf8(self.take(len)?)?))
    }

    /// A string.
    pub fn string(&mut self) -> Result<&'a str, ClassicError> {
        self.nullable_string()?.ok_or(ClassicError::Length { length: -1 })
    }

    /// Bytes that may be null.
    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, ClassicError> {
        let length = self.i32()?;
        nullable(length)?.map(|len| self.take(len)).transpose()
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], ClassicError> {
        self.nullable_bytes()?.ok_or(ClassicError::Length { length: -1 })
    }

    /// The number of elements of an array, each of at least `element_len_min` bytes (not 0); null counts as none. They
    /// fit what is left, so that memory can be reserved for them.
    pub fn count(&mut self, element_len_min: usize) -> Result<usize, ClassicError> {
        let length = self.i32()?;
        let count = nullable(length)?.unwrap_or(0);
        let need = count.saturating_mul(element_len_min);
        if need > self.rest.len() {
            return Err(ClassicError::Truncated {
                need,
                have: self.rest.len(),
            });
        }
        Ok(count)
    }
}

fn nullable(length: i32) -> Result<Option<usize>, ClassicError> {
    match length {
        -1 => Ok(None),
        length if length < 0 => Err(ClassicError::Length { length }),
        length => Ok(Some(length.cast_unsigned() as usize)),
    }
}

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An 8-bit number.
    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A 16-bit number.
    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A 32-bit number.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A 64-bit number.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A string, or null.
    ///
    /// # Panics
    /// When the string has more than 32,767 bytes.
    pub fn nullable_string(&mut self, value: Option<&str>) -> &mut Self {
        let Some(value) = value else { return self.i16(-1) };
        let len = i16::try_from(value.len()).expect("strings are held to less than 32 KiB where they come in");
        self.i16(len);
        self.bytes.extend_from_slice(value.as_bytes());
        self
    }

    /// A string.
    ///
    /// # Panics
    /// As [`nullable_string`](Self::nullable_string) does.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.nullable_string(Some(value))
    }

    /// Bytes, or null.
    ///
    /// # Panics
    /// When there are 2 GiB of them.
    pub fn nullable_bytes(&mut self, value: Option<&[u8]>) -> &mut Self {
        let Some(value) = value else { return self.i32(-1) };
        self.count(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    /// The number of elements of an array.
    ///
    /// # Panics
    /// When it does not fit 32 bits.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.i32(i32::try_from(count).expect("what is written fits a frame, which is below 2 GiB"))
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_in_order_and_nothing_is_left() {
        let mut writer = Writer::new();
        writer.i16(-2).i32(3).i64(i64::MIN).string("ä").nullable_string(None);
        writer.nullable_bytes(Some(&[1, 2])).nullable_bytes(None).count(0);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(
            (reader.i16(), reader.i32(), reader.i64()),
            (Ok(-2), Ok(3), Ok(i64::MIN))
        );
        assert_eq!((reader.string(), reader.nullable_string()), (Ok("ä"), Ok(None)));
        assert_eq!((reader.bytes(), reader.nullable_bytes()), (Ok(&[1, 2][..]), Ok(None)));
        assert_eq!((reader.count(1), reader.left()), (Ok(0), 0));
    }

    #[test]
    fn a_length_beyond_what_is_left_is_refused_before_anything_is_reserved() {
        let huge = i32::MAX.to_be_bytes();
        let truncated = |need| Err(ClassicError::Truncated { need, have: 0 });
        assert_eq!(
            Reader::new(&huge).nullable_bytes().map(|_| 0),
            truncated(i32::MAX as usize).map(|(): ()| 0)
        );
        assert_eq!(
            Reader::new(&huge).count(4),
            truncated(4 * i32::MAX as usize).map(|(): ()| 0)
        );
        assert_eq!(
            Reader::new(&[0x7f, 0xff]).string().map(str::len),
            truncated(32_767).map(|(): ()| 0)
        );
        let negative = Err(ClassicError::Length { length: -2 });
        assert_eq!(Reader::new(&[0xff, 0xfe]).nullable_string(), negative);
        assert_eq!(
            Reader::new(&[0xff, 0xff]).string(),
            Err(ClassicError::Length { length: -1 })
        );
        assert!(matches!(
            Reader::new(&[0, 1, 0xff]).string(),
            Err(ClassicError::Utf8(_))
        ));
    }
}
