//! Takes the fields of Kafka's encoding from bytes that nobody vouches for.
//!
//! Two forms: the plain one has lengths of 16 or 32 bits, -1 for null; the flexible one (KIP-482) has variable-length numbers that
//! are one more than the length, 0 for null, and tagged fields at the end of each structure.
//!
//! Limits, each checked before anything is reserved:
//! - a length or count is never more than the bytes that are left can hold;
//! - [`STRING_LEN_MAX`], [`TAGS_MAX`] as in Kafka;
//! - all arrays of a message together have at most [`ELEMENTS_MAX`] elements, where Kafka allows as many in each of them;
//!   [`Reader::with_elements_max`] says otherwise.
//!
//! What was read may take up to 64 times the memory of its bytes, as the smallest structures on the wire are large in memory; the
//! limit of elements bounds that too.

use std::str::Utf8Error;

use crate::value::Version;

/// The most bytes in a string, in either form.
pub const STRING_LEN_MAX: usize = 0x7fff;
/// The most bytes in the name of a topic, as in Kafka.
pub const TOPIC_NAME_LEN_MAX: usize = 249;
/// The most elements in all arrays of a message.
pub const ELEMENTS_MAX: usize = 1_000_000;
/// The most tagged fields in a structure.
pub const TAGS_MAX: usize = 10_000;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {fault}")]
pub struct Malformed {
    /// Where the field begins that is wrong, from the first byte that the reader was given.
    pub at: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It needs more bytes than there are.
    #[error("{need} bytes are needed, and {have} are left")]
    Truncated {
        /// Bytes that it needs at least.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// It is null, or has another negative length, where neither may be.
    #[error("the length {length} where null is not allowed, or less than null")]
    Length {
        /// The length as it was written.
        length: i32,
    },
    /// The string is longer than any may be.
    #[error("a string of {len} bytes; {STRING_LEN_MAX} are allowed")]
    LongString {
        /// Its length.
        len: usize,
    },
    /// The name is longer than that of any topic may be.
    #[error("a topic's name of {len} bytes; {TOPIC_NAME_LEN_MAX} are allowed")]
    LongTopicName {
        /// Its length.
        len: usize,
    },
    /// There would be more elements in the message's arrays than may be.
    #[error("an array of {count} elements, and {left} more are allowed in this message")]
    Elements {
        /// Elements of the array.
        count: usize,
        /// How many more there may be.
        left: usize,
    },
    /// There are more tagged fields than may be.
    #[error("{count} tagged fields; {TAGS_MAX} are allowed")]
    Tags {
        /// How many are claimed.
        count: usize,
    },
    /// A tagged field says another size than it has.
    #[error("the field with tag {tag} has {size} bytes, {left} of which are not part of it")]
    TagSize {
        /// The tag.
        tag: u32,
        /// The size that it says.
        size: usize,
        /// Bytes that its value left over.
        left: usize,
    },
    /// A number of variable length does not fit 32 bits.
    #[error("a number of variable length beyond 32 bits")]
    Varint,
    /// The string is not UTF-8.
    #[error(transparent)]
    Utf8(#[from] Utf8Error),
    /// The message has no such version.
    #[error("version {version} of {message}; {min} to {max} are known")]
    Version {
        /// The message.
        message: &'static str,
        /// The version that was asked for.
        version: i16,
        /// The first that is known.
        min: i16,
        /// The last that is known.
        max: i16,
    },
}

/// Takes fields from the front of bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    /// Everything up to the end of what may be read now.
    bytes: &'a [u8],
    at: usize,
    elements_left: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self::with_elements_max(bytes, ELEMENTS_MAX)
    }

    /// The same, with a limit of its own for the elements of all arrays together.
    pub const fn with_elements_max(bytes: &'a [u8], elements_max: usize) -> Self {
        Self {
            bytes,
            at: 0,
            elements_left: elements_max,
        }
    }

    /// Bytes that were taken.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let have = self.left();
        if len > have {
            return Err(self.wrong(Fault::Truncated { need: len, have }));
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    /// As many bytes as the result has.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => Err(self.wrong(Fault::Truncated {
                need: N,
                have: self.left(),
            })),
        }
    }

    /// An error at the next byte.
    pub(crate) const fn wrong(&self, fault: Fault) -> Malformed {
        Malformed { at: self.at, fault }
    }

    /// A number of variable length, without a sign.
    fn varint(&mut self) -> Result<u32, Malformed> {
        let start = self.at;
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if shift == 28 && byte > 0x0f {
                break;
            }
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed {
            at: start,
            fault: Fault::Varint,
        })
    }

    /// A length, or `None` for null.
    fn length(&mut self, flexible: bool, short: bool) -> Result<Option<usize>, Malformed> {
        let start = self.at;
        if flexible {
            return Ok((self.varint()? as usize).checked_sub(1));
        }
        let length = if short {
            i32::from(i16::from_be_bytes(self.array()?))
        } else {
            i32::from_be_bytes(self.array()?)
        };
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(length.cast_unsigned() as usize)),
            _ => Err(Malformed {
                at: start,
                fault: Fault::Length { length },
            }),
        }
    }

    /// A string, or null.
    pub fn string(&mut self, version: Version) -> Result<Option<&'a str>, Malformed> {
        let start = self.at;
        let Some(len) = self.length(version.flexible, true)? else {
            return Ok(None);
        };
        if len > STRING_LEN_MAX {
            return Err(Malformed {
                at: start,
                fault: Fault::LongString { len },
            });
        }
        match str::from_utf8(self.take(len)?) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(Malformed {
                at: start,
                fault: error.into(),
            }),
        }
    }

    /// Bytes, or null.
    pub fn bytes(&mut self, version: Version) -> Result<Option<&'a [u8]>, Malformed> {
        let len = self.length(version.flexible, false)?;
        len.map(|len| self.take(len)).transpose()
    }

    /// The number of elements of an array, each of at least `size_min` bytes, or null. They are taken off the message's limit.
    pub fn count(&mut self, version: Version, size_min: usize) -> Result<Option<usize>, Malformed> {
        let start = self.at;
        let Some(count) = self.length(version.flexible, false)? else {
            return Ok(None);
        };
        let wrong = |fault| Err(Malformed { at: start, fault });
        let (need, have) = (count.saturating_mul(size_min), self.left());
        if need > have {
            return wrong(Fault::Truncated { need, have });
        }
        let left = self.elements_left;
        match left.checked_sub(count) {
            Some(left) => self.elements_left = left,
            None => return wrong(Fault::Elements { count, left }),
        }
        Ok(Some(count))
    }

    /// For how many of `count` elements memory is reserved before they are read: no more of it than there are bytes left, but for
    /// a few elements. Larger ones that really are there make it grow.
    pub fn reserve<T>(&self, count: usize) -> usize {
        let fitting = self.left() / size_of::<T>().max(1);
        count.min(fitting.max(16))
    }

    /// The tagged fields at the end of a structure. `known` reads those that it knows, and says of others `false`: they are
    /// passed over.
    pub fn tags(&mut self, mut known: impl FnMut(u32, &mut Self) -> Result<bool, Malformed>) -> Result<(), Malformed> {
        let start = self.at;
        let count = self.varint()? as usize;
        let wrong = |fault| Err(Malformed { at: start, fault });
        if count > TAGS_MAX {
            return wrong(Fault::Tags { count });
        }
        let (need, have) = (2 * count, self.left());
        if need > have {
            return wrong(Fault::Truncated { need, have });
        }
        for _ in 0..count {
            self.tag(&mut known)?;
        }
        Ok(())
    }

    /// The tagged fields of a structure of which none is known, if the form has any.
    pub fn no_tags(&mut self, version: Version) -> Result<(), Malformed> {
        if version.flexible {
            self.tags(|_, _| Ok(false))?;
        }
        Ok(())
    }

    /// One tagged field, which must not be read beyond the size that it says.
    fn tag(&mut self, known: &mut impl FnMut(u32, &mut Self) -> Result<bool, Malformed>) -> Result<(), Malformed> {
        let tag = self.varint()?;
        let start = self.at;
        let size = self.varint()? as usize;
        let have = self.left();
        if size > have {
            return Err(self.wrong(Fault::Truncated { need: size, have }));
        }
        let whole = self.bytes;
        let end = self.at + size;
        self.bytes = &whole[..end];
        if known(tag, self)? && self.at != end {
            let left = self.left();
            return Err(Malformed {
                at: start,
                fault: Fault::TagSize { tag, size, left },
            });
        }
        self.at = end;
        self.bytes = whole;
        Ok(())
    }
}
