//! Variable-length numbers as records have them: zigzag, then seven bits a byte, least significant first.
//!
//! The encoding is Protocol Buffers' (sint32 and sint64). Overlong forms that fit the type are read, as Kafka reads them.

use super::RecordFault;

/// Most bytes in a [`put`] number.
pub(super) const LEN_MAX: usize = 10;

/// Bytes that [`put`] writes for the number.
#[inline]
pub(super) const fn len(value: i64) -> usize {
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    // Division by seven, rounded up; exact for 1..=64.
    ((bits * 9 + 64) / 64) as usize
}

/// Appends the number. 32-bit numbers take the same form, as long as they fit.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    if rest < 0x80 {
        out.push(rest as u8);
        return;
    }
    let mut bytes = [0; LEN_MAX];
    let mut at = 0;
    while rest >= 0x80 {
        bytes[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    bytes[at] = rest as u8;
    out.extend_from_slice(&bytes[..=at]);
}

/// Takes a 32-bit number from the front of `input`.
#[inline]
pub(super) fn take_i32(input: &mut &[u8]) -> Result<i32, RecordFault> {
    let bits = take(input, u32::BITS)? as u32;
    Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
}

/// Takes a 64-bit number from the front of `input`.
#[inline]
pub(super) fn take_i64(input: &mut &[u8]) -> Result<i64, RecordFault> {
    let bits = take(input, u64::BITS)?;
    Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
fn take(input: &mut &[u8], width: u32) -> Result<u64, RecordFault> {
    // Nearly all numbers of a record are this short, and fit any width.
    match **input {
        [first @ 0..0x80, ..] => {
            *input = &input[1..];
            Ok(u64::from(first))
        }
        [first, second @ 0..0x80, ..] => {
            *input = &input[2..];
            Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        [first, second, third @ 0..0x80, ..] => {
            *input = &input[3..];
            Ok(u64::from(first & 0x7f) | u64::from(second & 0x7f) << 7 | u64::from(third) << 14)
        }
        _ => take_long(input, width),
    }
}

fn take_long(input: &mut &[u8], width: u32) -> Result<u64, RecordFault> {
    let bytes = *input;
    let mut value = 0;
    let mut shift = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        if shift >= width || bits > (u64::MAX >> (u64::BITS - width)) >> shift {
            return Err(RecordFault::VarintTooLong);
        }
        value |= bits << shift;
        if byte < 0x80 {
            *input = &bytes[at + 1..];
            return Ok(value);
        }
        shift += 7;
    }
    Err(RecordFault::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_number_reads_back_and_leaves_what_follows(value: i64, follows: Vec<u8>) {
            let bytes = [encoded(value), follows.clone()].concat();
            let mut rest = &bytes[..];
            prop_assert_eq!(take_i64(&mut rest), Ok(value));
            prop_assert_eq!(rest, follows);
        }

        #[test]
        fn any_bytes_are_a_number_or_refused_and_a_narrow_number_is_the_wide_one(bytes: Vec<u8>) {
            let (mut narrow, mut wide) = (&bytes[..], &bytes[..]);
            if let Ok(value) = take_i32(&mut narrow) {
                prop_assert_eq!(take_i64(&mut wide), Ok(i64::from(value)));
                prop_assert_eq!(narrow, wide);
            }
        }
    }

    fn encoded(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, value);
        out
    }

    #[test]
    fn numbers_have_protocol_buffers_bytes() {
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(-1), [1]);
        assert_eq!(encoded(63), [126]);
        assert_eq!(encoded(64), [0x80, 1]);
        assert_eq!(encoded(-65), [0x81, 1]);
        assert_eq!(encoded(i64::from(i32::MIN)), [0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(
            encoded(i64::MIN),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]
        );
    }

    #[test]
    fn numbers_read_back_at_every_width_and_have_the_length_foretold() {
        for shift in 0..64 {
            for value in [
                1_i64 << shift,
                (1_i64 << shift).wrapping_sub(1),
                (1_i64 << shift).wrapping_neg(),
                !(1 << shift),
            ] {
                let bytes = encoded(value);
                assert_eq!(bytes.len(), len(value), "{value}");
                assert_eq!(take_i64(&mut &bytes[..]), Ok(value));
                let narrow = i32::try_from(value).ok().ok_or(RecordFault::VarintTooLong);
                assert_eq!(take_i32(&mut &bytes[..]), narrow, "{value}");
            }
        }
    }

    #[test]
    fn a_number_that_does_not_end_or_fit_is_refused() {
        let zeros_too_long = Err(RecordFault::VarintTooLong);
        assert_eq!(take_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), zeros_too_long);
        assert_eq!(take_i64(&mut &[0x80; 20][..]).map(|_| 0), zeros_too_long);
        assert_eq!(take_i32(&mut &[0x80, 0x80][..]), Err(RecordFault::Truncated));
        assert_eq!(take_i32(&mut &[][..]), Err(RecordFault::Truncated));
        assert_eq!(take_i32(&mut &[0xff; 20][..]), Err(RecordFault::VarintTooLong));
        assert_eq!(take_i64(&mut &[0xff; 20][..]), Err(RecordFault::VarintTooLong));
        assert_eq!(
            take_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x10][..]),
            Err(RecordFault::VarintTooLong)
        );
        assert_eq!(take_i32(&mut &[0x82, 0x80, 0][..]), Ok(1), "overlong, but it fits");
    }
}
