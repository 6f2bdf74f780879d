//! The heads of requests, verified.

use flatbuffers::{Follow, Verifiable};
use headwater_protocol::{error::ErrorCode, head};

use crate::model::refusal::Refusal;

/// Verifies a head. Only what comes of this is looked at.
pub(in crate::session::native) fn read<'a, T>(bytes: &'a [u8]) -> Result<T::Inner, Refusal>
where
    T: Follow<'a> + Verifiable + 'a,
{
    head::decode::<T>(bytes).map_err(|error| Refusal::because(ErrorCode::InvalidRequest, &error))
}
