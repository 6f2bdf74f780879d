//! What a field can be, and how each is read and written; the generated structures are made of these.

use std::borrow::Cow;
use std::ops::RangeInclusive;

pub use crate::reader::{Fault, Malformed, Reader, STRING_LEN_MAX, TOPIC_NAME_LEN_MAX};

/// A string: borrowed from the frame that it was read from, or owned by an answer.
pub type Str<'a> = Cow<'a, str>;
/// Bytes, or record batches, as [`Str`].
pub type Bytes<'a> = Cow<'a, [u8]>;
/// The bytes of a UUID, all zero for none. Ids of topics are among them.
pub type Uuid = [u8; 16];

/// Which topic is meant, in the messages that have ids in the place of names from some version on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicRef<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id.
    Id(Uuid),
}

impl<'a> TopicRef<'a> {
    /// Takes an id or a name from the reader. A name that no topic can have is refused: an answer repeats it for each partition.
    pub(crate) fn get(reader: &mut Reader<'a>, v: Version, by_id: bool) -> Result<Self, Malformed> {
        if by_id {
            return reader.array().map(Self::Id);
        }
        let null = reader.wrong(Fault::Length { length: -1 });
        let name = reader.string(v)?.ok_or(null)?;
        if name.len() > TOPIC_NAME_LEN_MAX {
            let fault = Fault::LongTopicName { len: name.len() };
            return Err(Malformed { fault, ..null });
        }
        Ok(Self::Name(name))
    }

    /// Appends it, if it is what the version has.
    pub(crate) fn put(&self, out: &mut Vec<u8>, v: Version, by_id: bool) -> Result<(), Unwritable> {
        match self {
            Self::Id(id) if by_id => id.put(out, v),
            Self::Name(name) if !by_id => put_str(out, Some(name), v),
            Self::Id(_) => Err(lacks("TopicId", v)),
            Self::Name(_) => Err(lacks("Name", v)),
        }
    }
}

/// A version of a message, and the form that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The number.
    pub number: i16,
    /// Whether the form is the flexible one (KIP-482).
    pub flexible: bool,
}

impl Version {
    /// The same version in the plain form.
    #[must_use]
    pub const fn plain(self) -> Self {
        Self {
            flexible: false,
            ..self
        }
    }
}

/// Why a message cannot be written at a version. Nothing was written then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwritable {
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
    /// A value would be lost, and the receiver misled.
    #[error("version {version} has no field {field}, which has a value that it must not lose: leave it at its default")]
    Lacks {
        /// Kafka's name of the field.
        field: &'static str,
        /// The version.
        version: i16,
    },
    /// A field is null where this version allows none.
    #[error("version {version} allows no null in {field}")]
    Null {
        /// Kafka's name of the field.
        field: &'static str,
        /// The version.
        version: i16,
    },
    /// A string or array is longer than its length can say.
    #[error("{len} bytes or elements, where {max} are allowed")]
    Long {
        /// Its length.
        len: usize,
        /// The longest.
        max: usize,
    },
}

pub(crate) fn lacks(field: &'static str, v: Version) -> Unwritable {
    Unwritable::Lacks {
        field,
        version: v.number,
    }
}

pub(crate) fn required<T>(value: Option<T>, field: &'static str, v: Version) -> Result<T, Unwritable> {
    value.ok_or(Unwritable::Null {
        field,
        version: v.number,
    })
}

/// A message of Kafka's.
pub trait Message<'a>: Value<'a> {
    /// Kafka's name of it.
    const NAME: &'static str;
    /// The versions that are known.
    const VERSIONS: RangeInclusive<i16>;
    /// The first version in the flexible form; `i16::MAX` if none is.
    const FLEXIBLE_FROM: i16;

    /// Reads one. Bytes behind it are left.
    fn read(reader: &mut Reader<'a>, version: i16) -> Result<Self, Malformed> {
        let version = readable::<Self>(reader, version)?;
        Self::get(reader, version)
    }

    /// Appends it to `out`, or appends nothing.
    ///
    /// Fields that the version lacks are left out when Kafka calls them ignorable, or when they have their default.
    fn write(&self, out: &mut Vec<u8>, version: i16) -> Result<(), Unwritable> {
        let version = writable::<Self>(version)?;
        whole(out, |out| self.put(out, version))
    }
}

/// Appends what `put` does, or nothing when it fails.
pub(crate) fn whole<T>(
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>) -> Result<T, Unwritable>,
) -> Result<T, Unwritable> {
    let start = out.len();
    let result = put(out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// How a version of a message is read, or the error of one that is not known.
pub(crate) fn readable<'a, M: Message<'a>>(reader: &Reader<'_>, version: i16) -> Result<Version, Malformed> {
    form::<M>(version).map_err(|(min, max)| {
        reader.wrong(Fault::Version {
            message: M::NAME,
            version,
            min,
            max,
        })
    })
}

/// The same for writing.
pub(crate) fn writable<'a, M: Message<'a>>(version: i16) -> Result<Version, Unwritable> {
    form::<M>(version).map_err(|(min, max)| Unwritable::Version {
        message: M::NAME,
        version,
        min,
        max,
    })
}

/// How a version is written, or the first and the last that are known.
fn form<'a, M: Message<'a>>(version: i16) -> Result<Version, (i16, i16)> {
    let known = M::VERSIONS;
    if !known.contains(&version) {
        return Err((*known.start(), *known.end()));
    }
    Ok(Version {
        number: version,
        flexible: version >= M::FLEXIBLE_FROM,
    })
}

/// What a field can be.
pub trait Value<'a>: Sized {
    /// Bytes of the shortest one, in any version; at least one.
    const SIZE_MIN: usize;

    /// Takes one from the reader.
    fn get(reader: &mut Reader<'a>, v: Version) -> Result<Self, Malformed>;

    /// Appends it. What was appended before an error is for the caller to remove.
    fn put(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable>;
}

/// What may be null, in a form that depends on what it is.
pub trait Nullable<'a>: Sized {
    /// Bytes of null, in any version.
    const NULL_SIZE: usize = 1;

    /// Takes one, or null, from the reader.
    fn get_nullable(reader: &mut Reader<'a>, v: Version) -> Result<Option<Self>, Malformed>;

    /// Appends it, or null.
    fn put_nullable(value: Option<&Self>, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable>;
}

impl<'a, T: Nullable<'a>> Value<'a> for Option<T> {
    const SIZE_MIN: usize = T::NULL_SIZE;

    fn get(reader: &mut Reader<'a>, v: Version) -> Result<Self, Malformed> {
        T::get_nullable(reader, v)
    }

    fn put(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        T::put_nullable(self.as_ref(), out, v)
    }
}

/// What is never null, of what may be.
fn get_required<'a, T: Nullable<'a>>(reader: &mut Reader<'a>, v: Version) -> Result<T, Malformed> {
    let null = reader.wrong(Fault::Length { length: -1 });
    T::get_nullable(reader, v)?.ok_or(null)
}

/// The number of elements of an array that is never null.
pub(crate) fn required_count(reader: &mut Reader<'_>, v: Version, size_min: usize) -> Result<usize, Malformed> {
    let null = reader.wrong(Fault::Length { length: -1 });
    reader.count(v, size_min)?.ok_or(null)
}

macro_rules! numbers {
    ($($number:ty)+) => {$(
        impl<'a> Value<'a> for $number {
            const SIZE_MIN: usize = size_of::<$number>();

            fn get(reader: &mut Reader<'a>, _: Version) -> Result<Self, Malformed> {
                reader.array().map(Self::from_be_bytes)
            }

            fn put(&self, out: &mut Vec<u8>, _: Version) -> Result<(), Unwritable> {
                out.extend_from_slice(&self.to_be_bytes());
                Ok(())
            }
        }
    )+};
}

numbers! { i8 i16 u16 i32 i64 f64 }

impl<'a> Value<'a> for bool {
    const SIZE_MIN: usize = 1;

    fn get(reader: &mut Reader<'a>, _: Version) -> Result<Self, Malformed> {
        reader.array().map(|[byte]| byte != 0)
    }

    fn put(&self, out: &mut Vec<u8>, _: Version) -> Result<(), Unwritable> {
        out.push(u8::from(*self));
        Ok(())
    }
}

impl<'a> Value<'a> for Uuid {
    const SIZE_MIN: usize = size_of::<Uuid>();

    fn get(reader: &mut Reader<'a>, _: Version) -> Result<Self, Malformed> {
        reader.array()
    }

    fn put(&self, out: &mut Vec<u8>, _: Version) -> Result<(), Unwritable> {
        out.extend_from_slice(self);
        Ok(())
    }
}

impl<'a> Nullable<'a> for Str<'a> {
    fn get_nullable(reader: &mut Reader<'a>, v: Version) -> Result<Option<Self>, Malformed> {
        Ok(reader.string(v)?.map(Cow::Borrowed))
    }

    fn put_nullable(value: Option<&Self>, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        put_str(out, value.map(AsRef::as_ref), v)
    }
}

impl<'a> Nullable<'a> for Bytes<'a> {
    fn get_nullable(reader: &mut Reader<'a>, v: Version) -> Result<Option<Self>, Malformed> {
        Ok(reader.bytes(v)?.map(Cow::Borrowed))
    }

    fn put_nullable(value: Option<&Self>, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        put_count(out, value.map(|bytes| bytes.len()), v)?;
        out.extend_from_slice(value.map_or(&[], AsRef::as_ref));
        Ok(())
    }
}

impl<'a, T: Value<'a>> Nullable<'a> for Vec<T> {
    fn get_nullable(reader: &mut Reader<'a>, v: Version) -> Result<Option<Self>, Malformed> {
        let Some(count) = reader.count(v, T::SIZE_MIN)? else {
            return Ok(None);
        };
        let mut elements = Self::with_capacity(reader.reserve::<T>(count));
        for _ in 0..count {
            elements.push(T::get(reader, v)?);
        }
        Ok(Some(elements))
    }

    fn put_nullable(value: Option<&Self>, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
        put_count(out, value.map(Vec::len), v)?;
        value.into_iter().flatten().try_for_each(|element| element.put(out, v))
    }
}

/// What has a null in its own form, where it is not null.
macro_rules! never_null {
    ($(($($generic:tt)*) $value:ty;)+) => {$(
        impl<'a, $($generic)*> Value<'a> for $value {
            const SIZE_MIN: usize = 1;

            fn get(reader: &mut Reader<'a>, v: Version) -> Result<Self, Malformed> {
                get_required(reader, v)
            }

            fn put(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
                Self::put_nullable(Some(self), out, v)
            }
        }
    )+};
}

never_null! {
    () Str<'a>;
    () Bytes<'a>;
    (T: Value<'a>) Vec<T>;
}

/// A structure that may be null: a byte before it says whether it is, in either form.
macro_rules! nullable {
    ($structure:ty) => {
        impl<'a> Nullable<'a> for $structure {
            fn get_nullable(reader: &mut Reader<'a>, v: Version) -> Result<Option<Self>, Malformed> {
                if i8::get(reader, v)? < 0 {
                    return Ok(None);
                }
                Self::get(reader, v).map(Some)
            }

            fn put_nullable(value: Option<&Self>, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {
                match value {
                    None => (-1_i8).put(out, v),
                    Some(value) => 1_i8.put(out, v).and_then(|()| value.put(out, v)),
                }
            }
        }
    };
}
pub(crate) use nullable;

/// Appends a number of variable length.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of bytes or of an array, or null.
pub(crate) fn put_count(out: &mut Vec<u8>, count: Option<usize>, v: Version) -> Result<(), Unwritable> {
    const MAX: usize = i32::MAX as usize - 1;
    let Some(count) = count else {
        put_null(out, &(-1_i32).to_be_bytes(), v);
        return Ok(());
    };
    if count > MAX {
        return Err(Unwritable::Long { len: count, max: MAX });
    }
    if v.flexible {
        put_varint(out, count as u32 + 1);
    } else {
        out.extend_from_slice(&(count as u32).to_be_bytes());
    }
    Ok(())
}

/// Appends a string, or null.
pub(crate) fn put_str(out: &mut Vec<u8>, value: Option<&str>, v: Version) -> Result<(), Unwritable> {
    let Some(value) = value else {
        put_null(out, &(-1_i16).to_be_bytes(), v);
        return Ok(());
    };
    let len = value.len();
    if len > STRING_LEN_MAX {
        return Err(Unwritable::Long {
            len,
            max: STRING_LEN_MAX,
        });
    }
    if v.flexible {
        put_varint(out, len as u32 + 1);
    } else {
        out.extend_from_slice(&(len as u16).to_be_bytes());
    }
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

fn put_null(out: &mut Vec<u8>, plain: &[u8], v: Version) {
    out.extend_from_slice(if v.flexible { &[0] } else { plain });
}

/// Ends a structure that has no tagged fields.
pub(crate) fn no_tags(out: &mut Vec<u8>, v: Version) {
    if v.flexible {
        out.push(0);
    }
}

/// Writes the tagged fields at the end of a structure, in the order of their tags; of no structure are more than 127 known.
pub(crate) struct Tags<'o> {
    out: &'o mut Vec<u8>,
    count_at: usize,
}

impl<'o> Tags<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        let count_at = out.len();
        out.push(0);
        Self { out, count_at }
    }

    pub(crate) fn put<'a>(&mut self, tag: u32, value: &impl Value<'a>, v: Version) -> Result<(), Unwritable> {
        self.out[self.count_at] += 1;
        put_varint(self.out, tag);
        let start = self.out.len();
        value.put(self.out, v)?;
        // The size goes before the value, and is known now.
        let size = self.out.len() - start;
        put_varint(self.out, size as u32);
        self.out[start..].rotate_left(size);
        Ok(())
    }
}
