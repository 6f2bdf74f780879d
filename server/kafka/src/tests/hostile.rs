//! Bytes that are no message are refused, whatever they are.

use proptest::prelude::*;

use super::CASES;
use crate::header;
use crate::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse};
use crate::reader::{ELEMENTS_MAX, Fault, Malformed, Reader, TAGS_MAX};
use crate::value::Message;
use crate::{fetch, produce};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..4_u8], 0..120)) {
        for case in CASES {
            for version in case.versions.clone() {
                if let Ok(again) = (case.rewrite)(&bytes, version) {
                    prop_assert_eq!((case.rewrite)(&again, version), Ok(again), "{} {}", case.name, version);
                }
            }
        }
        for version in 3..=18 {
            let _ = produce::Request::read(&mut Reader::new(&bytes), version);
            let _ = fetch::Request::read(&mut Reader::new(&bytes), version);
        }
        let _ = header::read_request(&mut Reader::new(&bytes));
    }
}

#[test]
fn a_message_cut_short_anywhere_is_refused() {
    let source: Vec<u8> = (0..600_u32).map(|number| (number * 31 % 251) as u8).collect();
    for case in CASES {
        for version in case.versions.clone() {
            let bytes = (case.there_and_back)(&source, version);
            for len in 0..bytes.len() {
                let result = (case.rewrite)(&bytes[..len], version);
                let Err(Malformed { at, .. }) = result else {
                    panic!("{} {version} reads {len} of {} bytes", case.name, bytes.len());
                };
                assert!(at <= len);
            }
        }
    }
}

#[test]
fn counts_and_lengths_are_compared_with_what_is_left() {
    let fault = |bytes: &[u8], version| MetadataRequest::read(&mut Reader::new(bytes), version).unwrap_err();
    // An array of 2^31 - 1 topics, each of at least two bytes.
    let huge = Fault::Truncated {
        need: 2 * i32::MAX as usize,
        have: 0,
    };
    assert_eq!(fault(&[0x7f, 0xff, 0xff, 0xff], 4), Malformed { at: 0, fault: huge });
    assert_eq!(fault(&[0xff, 0xff, 0xff, 0xfe], 4).fault, Fault::Length { length: -2 });
    assert_eq!(fault(&[0x80; 6], 9).fault, Fault::Varint);
    assert_eq!(fault(&[0xff, 0xff, 0xff, 0xff, 0x1f], 9).fault, Fault::Varint);
    // The name of the first topic, null up to version 9.
    assert_eq!(
        fault(&[0, 0, 0, 1, 0xff, 0xff], 4),
        Malformed {
            at: 4,
            fault: Fault::Length { length: -1 }
        }
    );
    assert!(matches!(
        fault(&[0, 0, 0, 1, 0, 1, 0xff], 4),
        Malformed {
            at: 4,
            fault: Fault::Utf8(_)
        }
    ));
    let mut long = vec![2, 0x80 + 1, 0x80, 2];
    long.resize(4 + 0x8000, b'x');
    assert_eq!(fault(&long, 9).fault, Fault::LongString { len: 0x8000 });
}

#[test]
fn memory_for_large_elements_is_reserved_as_they_come() {
    let bytes = [0; 1000];
    let reader = Reader::new(&bytes);
    assert_eq!(reader.reserve::<[u8; 200]>(500), 16);
    assert_eq!(reader.reserve::<i32>(200), 200);
}

#[test]
fn all_arrays_of_a_message_share_a_limit() {
    let topics = |count: u32, each: &[u8]| [&count.to_be_bytes()[..], &each.repeat(count as usize)].concat();
    let bytes = topics(ELEMENTS_MAX as u32 + 1, &[0, 0]);
    let beyond = Fault::Elements {
        count: ELEMENTS_MAX + 1,
        left: ELEMENTS_MAX,
    };
    let result = MetadataRequest::read(&mut Reader::new(&bytes), 1);
    assert_eq!(result.unwrap_err().fault, beyond);
    let bytes = topics(8, &[0, 0]);
    assert!(MetadataRequest::read(&mut Reader::with_elements_max(&bytes, 8), 1).is_ok());
    assert!(MetadataRequest::read(&mut Reader::with_elements_max(&bytes, 7), 1).is_err());
    // Brokers and topics: two arrays of one message.
    let mut response = topics(2, &[0; 4 + 2 + 4]);
    response.extend([0, 0, 0, 2]);
    response.extend([0; 2 * (2 + 2 + 4)]);
    assert!(MetadataResponse::read(&mut Reader::with_elements_max(&response, 4), 0).is_ok());
    assert!(MetadataResponse::read(&mut Reader::with_elements_max(&response, 3), 0).is_err());
}

#[test]
fn tagged_fields_are_passed_over_or_wholly_read() {
    let read = |tags: &[u8]| {
        let bytes = [&[2, b'a', 2, b'1'], tags].concat();
        ApiVersionsRequest::read(&mut Reader::new(&bytes), 3).map(|request| request.client_software_name.into_owned())
    };
    assert_eq!(read(&[0]).as_deref(), Ok("a"));
    assert_eq!(read(&[2, 5, 3, 1, 2, 3, 0x80, 1, 0]).as_deref(), Ok("a"));
    assert_eq!(
        read(&[1, 5, 3, 1, 2]).unwrap_err().fault,
        Fault::Truncated { need: 3, have: 2 }
    );
    let many = [0x91, 0x4e];
    assert_eq!(read(&many).unwrap_err().fault, Fault::Tags { count: TAGS_MAX + 1 });
    // The finalised features' epoch of a response is eight bytes with tag 1.
    let epoch = |size: usize| {
        let mut bytes = vec![0, 0, 1, 0, 0, 0, 0, 1, 1, size as u8];
        bytes.extend([1; 9]);
        ApiVersionsResponse::read(&mut Reader::new(&bytes), 3).map(|response| response.finalized_features_epoch)
    };
    assert_eq!(epoch(8), Ok(0x0101_0101_0101_0101));
    assert_eq!(
        epoch(9).unwrap_err(),
        Malformed {
            at: 9,
            fault: Fault::TagSize {
                tag: 1,
                size: 9,
                left: 1
            }
        }
    );
    assert_eq!(epoch(7).unwrap_err().fault, Fault::Truncated { need: 8, have: 7 });
}
