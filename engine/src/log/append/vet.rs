//! A look at record batches from a client, down to the last record, before a log takes them in: whatever is stored can be read.
//!
//! What a batch says of itself, above all how many offsets it takes up, is only true if its records say the same, and a compressed
//! one must be opened for that. That takes long, so it is done apart from the append, which cannot wait: piece by piece, on
//! whichever core the batches came to. It depends on no log.

use futures::FutureExt as _;
use headwater_protocol::batch::{BatchError, BatchLimits, Batches, RecordBatch, RecordFault};

use crate::{error::AppendError, log::DECOMPRESSED_SIZE_MAX};

/// Batches that a client may append, each of them whole, right, and readable.
#[derive(Debug, Clone)]
pub struct Vetted<'a> {
    payload: &'a [u8],
    batches: Vec<RecordBatch<'a>>,
    keyless: Option<Keyless>,
}

/// The first record without a key.
#[derive(Debug, Clone, Copy)]
struct Keyless {
    batch: usize,
    index: u32,
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
        let mut keyless = None;
        for (number, batch) in batches.iter().enumerate() {
            batch.check_from_client()?;
            if batch.is_transactional() {
                return Err(AppendError::Invalid("transactions are not supported"));
            }
            if batch.producer_id().is_some() && batches.len() > 1 {
                return Err(AppendError::Invalid("an idempotent producer sends one batch a request"));
            }
            let without_key = batch.check_records(DECOMPRESSED_SIZE_MAX, &give_way).await?;
            keyless = keyless.or(without_key.map(|index| Keyless { batch: number, index }));
        }
        Ok(Vetted {
            payload,
            batches,
            keyless,
        })
    }

    /// [`look`](Self::look) in one go.
    pub fn at_once(payload: &'a [u8], limits: &BatchLimits) -> Result<Vetted<'a>, AppendError> {
        let looked = Vetted::look(payload, limits, async || ()).now_or_never();
        looked.expect("nothing is waited for")
    }

    /// A copy, to be appended by another core.
    pub fn to_bytes(&self) -> VettedBytes {
        VettedBytes {
            payload: self.payload.to_vec(),
            keyless: self.keyless,
        }
    }

    pub(super) fn batches(&self) -> &[RecordBatch<'a>] {
        &self.batches
    }

    pub(super) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.payload.len()
    }

    /// Whether each record has a key.
    pub(super) fn check_keys(&self) -> Result<(), BatchError> {
        match self.keyless {
            Some(Keyless { batch, index }) => Err(self.batches[batch].bad_record(index, RecordFault::NoKey)),
            None => Ok(()),
        }
    }
}

/// [`Vetted`] batches with the memory that they are in.
#[derive(Debug, Clone)]
pub struct VettedBytes {
    payload: Vec<u8>,
    keyless: Option<Keyless>,
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
            keyless: self.keyless,
        })
    }
}
