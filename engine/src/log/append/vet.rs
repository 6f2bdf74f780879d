//! A look at record batches from a client, down to the last record, before a log takes them in: whatever is stored can be read.
//!
//! What a batch says of itself, above all how many offsets it takes up, is only true if its records say the same, and a compressed
//! one must be opened for that. That takes long, so it is done apart from the append, which cannot wait: piece by piece, on
//! whichever core the batches came to. It depends on no log.

use futures::FutureExt as _;
use headwater_protocol::{
    batch::{BatchError, BatchLimits, Batches, RecordBatch, Seen},
    id::Sequence,
};

use crate::{error::AppendError, log::DECOMPRESSED_SIZE_MAX};

/// Batches that a client may append, each of them whole, right, and readable.
#[derive(Debug, Clone)]
pub struct Vetted<'a> {
    payload: &'a [u8],
    batches: Vec<RecordBatch<'a>>,
    /// Of each batch.
    seen: Vec<Seen>,
    begins: Begins,
}

/// With which sequence number an idempotent producer may begin whom the partition does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begins {
    /// With the first, so that a rejected first batch is never overtaken by its successor.
    #[default]
    AtZero,
    /// With the first, or with this one, which was refused before.
    At(Sequence),
    /// With any, as in Kafka: what was known of it may have been forgotten. Whoever says so sees to it that nothing of the producer was
    /// refused before.
    Anywhere,
    /// Nothing is numbered: the batches are a broker's own, in the name of a producer. Only its epoch counts.
    Unnumbered,
}

impl Begins {
    pub(crate) fn allows(self, sequence: Sequence) -> bool {
        sequence.get() == 0 || matches!(self, Begins::Anywhere | Begins::Unnumbered) || self == Begins::At(sequence)
    }
}

impl<'a> Vetted<'a> {
    /// Looks at all batches of a payload. `give_way` is awaited before one is decompressed, and between pieces of work of about 0.1 ms.
    pub async fn look(
        payload: &'a [u8],
        limits: &BatchLimits,
        give_way: impl AsyncFn(),
    ) -> Result<Vetted<'a>, AppendError> {
        let batches = Batches::new(payload, limits).collect::<Result<Vec<_>, _>>()?;
        if batches.is_empty() {
            return Err(AppendError::Empty);
        }
        let mut seen = Vec::with_capacity(batches.len());
        for batch in &batches {
            batch.check_from_client()?;
            if batch.is_transactional() && !batch.producer_id().is_some() {
                return Err(AppendError::Invalid("a batch of a transaction names its producer"));
            }
            if batch.producer_id().is_some() && batches.len() > 1 {
                return Err(AppendError::Invalid("an idempotent producer sends one batch a request"));
            }
            seen.push(batch.check_records(DECOMPRESSED_SIZE_MAX, &give_way).await?);
        }
        Ok(Vetted {
            payload,
            batches,
            seen,
            begins: Begins::default(),
        })
    }

    /// The same, of a producer that may begin here so.
    #[must_use]
    pub fn beginning(self, begins: Begins) -> Vetted<'a> {
        Vetted { begins, ..self }
    }

    /// [`look`](Self::look) in one go.
    pub fn at_once(payload: &'a [u8], limits: &BatchLimits) -> Result<Vetted<'a>, AppendError> {
        let looked = Vetted::look(payload, limits, async || ()).now_or_never();
        looked.expect("nothing is waited for")
    }

    /// Batches that a broker has made itself. They are not numbered, though they may be of a producer's transaction.
    pub fn of_broker(payload: &'a [u8], limits: &BatchLimits) -> Result<Vetted<'a>, AppendError> {
        let batches = Batches::new(payload, limits).collect::<Result<Vec<_>, _>>()?;
        if batches.is_empty() {
            return Err(AppendError::Empty);
        }
        let mut seen = Vec::with_capacity(batches.len());
        for batch in &batches {
            let checked = batch.check_records(DECOMPRESSED_SIZE_MAX, &async || ());
            seen.push(checked.now_or_never().expect("nothing is waited for")?);
        }
        Ok(Vetted {
            payload,
            batches,
            seen,
            begins: Begins::Unnumbered,
        })
    }

    /// A copy, to be appended by another core.
    pub fn to_bytes(&self) -> VettedBytes {
        VettedBytes {
            payload: self.payload.to_vec(),
            seen: self.seen.clone(),
            begins: self.begins,
        }
    }

    /// Whether some of it is part of a transaction: whoever appends it sees to it that this was begun, and will end.
    pub fn is_transactional(&self) -> bool {
        self.batches.iter().any(|batch| batch.is_transactional())
    }

    /// The batches.
    pub fn batches(&self) -> &[RecordBatch<'a>] {
        &self.batches
    }

    /// What was seen of each batch.
    pub(super) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Where a producer that is not known may begin.
    pub fn begins(&self) -> Begins {
        self.begins
    }

    pub(super) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.payload.len()
    }

    /// Refuses records without a key.
    pub(super) fn check_keys(&self) -> Result<(), AppendError> {
        match self.seen.iter().find(|seen| seen.keyless.count > 0) {
            None => Ok(()),
            Some(seen) => Err(AppendError::NoKey {
                count: seen.keyless.count,
                first: seen.keyless.first().to_vec(),
            }),
        }
    }
}

/// [`Vetted`] batches with the memory that they are in.
#[derive(Debug, Clone)]
pub struct VettedBytes {
    payload: Vec<u8>,
    seen: Vec<Seen>,
    begins: Begins,
}

impl VettedBytes {
    /// The batches. Their checksums are looked at once more.
    pub fn borrow(&self) -> Result<Vetted<'_>, BatchError> {
        let limits = BatchLimits {
            batch_size_max: self.payload.len(),
        };
        let batches = Batches::new(&self.payload, &limits).collect::<Result<Vec<_>, _>>()?;
        Ok(Vetted {
            payload: &self.payload,
            batches,
            seen: self.seen.clone(),
            begins: self.begins,
        })
    }
}
