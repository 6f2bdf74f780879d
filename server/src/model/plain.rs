//! How ids are written down: as the numbers that they are. `#[serde(with = "plain")]` on a field that is one, and the module of its
//! name on a field that holds several.

use headwater_protocol::id::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error},
};
use uuid::Uuid;

/// An id, and what it is when it is written.
pub(crate) trait Plain: Copy {
    /// The number.
    type Number: Serialize + DeserializeOwned;

    fn number(self) -> Self::Number;

    /// The reverse; none if no id has this number.
    fn of(number: Self::Number) -> Option<Self>;
}

macro_rules! plain {
    ($($id:ty as $number:ty),+) => {$(
        impl Plain for $id {
            type Number = $number;

            fn number(self) -> $number {
                self.get()
            }

            fn of(number: $number) -> Option<$id> {
                Some(<$id>::new(number))
            }
        }
    )+};
}

plain! { BrokerId as i32, LeaderEpoch as i32 }

impl Plain for PartitionIndex {
    type Number = i32;

    fn number(self) -> i32 {
        self.get()
    }

    fn of(number: i32) -> Option<PartitionIndex> {
        PartitionIndex::try_from(number).ok()
    }
}

impl Plain for TopicId {
    type Number = Uuid;

    fn number(self) -> Uuid {
        *self.as_uuid()
    }

    fn of(number: Uuid) -> Option<TopicId> {
        Some(TopicId::new(number))
    }
}

pub(crate) fn serialize<T: Plain, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
    id.number().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let number = T::Number::deserialize(deserializer)?;
    T::of(number).ok_or_else(|| D::Error::custom("no id has this number"))
}

/// One of them, where serde wants a type.
struct Written<T>(T);

impl<T: Plain> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Written)
    }
}

fn written<T: Plain>(ids: &[T]) -> Vec<Written<T>> {
    ids.iter().copied().map(Written).collect()
}

fn read<T>(ids: Vec<Written<T>>) -> Vec<T> {
    ids.into_iter().map(|Written(id)| id).collect()
}

/// One, or none.
pub(crate) mod maybe {
    use super::{Deserialize, Deserializer, Plain, Serialize, Serializer, Written};

    #[expect(clippy::ref_option, reason = "serde hands a field over as it is")]
    pub(crate) fn serialize<T: Plain, S: Serializer>(id: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        id.map(Written).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        let id = Option::<Written<T>>::deserialize(deserializer)?;
        Ok(id.map(|Written(id)| id))
    }
}

/// Several.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, Plain, Serialize, Serializer, Written, read, written};

    pub(crate) fn serialize<T: Plain, S: Serializer>(ids: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        written(ids).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        Vec::<Written<T>>::deserialize(deserializer).map(read)
    }
}

/// Several times several.
pub(crate) mod lists {
    use super::{Deserialize, Deserializer, Plain, Serialize, Serializer, Written, read, written};

    pub(crate) fn serialize<T: Plain, S: Serializer>(lists: &[Vec<T>], serializer: S) -> Result<S::Ok, S::Error> {
        let lists: Vec<Vec<Written<T>>> = lists.iter().map(|ids| written(ids)).collect();
        lists.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<T>>, D::Error> {
        let lists = Vec::<Vec<Written<T>>>::deserialize(deserializer)?;
        Ok(lists.into_iter().map(read).collect())
    }
}

/// Several, each with something else.
pub(crate) mod keyed {
    use super::{Deserialize, DeserializeOwned, Deserializer, Plain, Serialize, Serializer, Written};

    pub(crate) fn serialize<T: Plain, V: Serialize, S: Serializer>(
        pairs: &[(T, V)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(Written<T>, &V)> = pairs.iter().map(|(id, with)| (Written(*id), with)).collect();
        pairs.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Plain, V: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(T, V)>, D::Error> {
        let pairs = Vec::<(Written<T>, V)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(Written(id), with)| (id, with)).collect())
    }
}
