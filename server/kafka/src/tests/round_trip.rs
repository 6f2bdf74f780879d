//! What is written reads back as it was, and a version never loses what it must not.

use proptest::prelude::*;

use super::CASES;
use crate::messages::{self, MetadataRequest, OffsetFetchRequest, SyncGroupRequest};
use crate::value::{Message, Unwritable};
use crate::{ApiKey, Reader};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_of_every_version_reads_back_as_it_was(source in proptest::collection::vec(any::<u8>(), 0..400)) {
        for case in CASES {
            for version in case.versions.clone() {
                let bytes = (case.there_and_back)(&source, version);
                prop_assert_eq!((case.rewrite)(&bytes, version), Ok(bytes), "{} {}", case.name, version);
            }
        }
    }
}

#[test]
fn a_version_that_lacks_a_field_drops_it_only_where_kafka_does() {
    let mut out = vec![7];
    // Kafka calls the protocol type ignorable, and not the instance id.
    let mut request = SyncGroupRequest {
        protocol_type: Some("consumer".into()),
        ..SyncGroupRequest::default()
    };
    request.write(&mut out, 0).unwrap();
    let read = SyncGroupRequest::read(&mut Reader::new(&out[1..]), 0).unwrap();
    assert_eq!(read, SyncGroupRequest::default());
    out.truncate(1);
    request.group_instance_id = Some("static".into());
    let lacks = Unwritable::Lacks {
        field: "GroupInstanceId",
        version: 0,
    };
    assert_eq!(request.write(&mut out, 0), Err(lacks));
    assert_eq!(out, [7], "nothing is appended");
}

#[test]
fn null_is_written_where_the_version_has_it() {
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let mut out = Vec::new();
    let null = Unwritable::Null {
        field: "Topics",
        version: 0,
    };
    assert_eq!(request.write(&mut out, 0), Err(null));
    request.write(&mut out, 1).unwrap();
    assert_eq!(out, [0xff; 4]);
    assert!(MetadataRequest::read(&mut Reader::new(&out), 0).is_err());
    let request = OffsetFetchRequest {
        topics: None,
        ..OffsetFetchRequest::default()
    };
    assert!(matches!(request.write(&mut out, 1), Err(Unwritable::Null { .. })));
    request.write(&mut out, 2).unwrap();
}

#[test]
fn a_string_that_no_reader_would_take_is_not_written() {
    let response = messages::SaslAuthenticateResponse {
        error_message: Some("x".repeat(0x8000).into()),
        ..Default::default()
    };
    let long = Unwritable::Long {
        len: 0x8000,
        max: 0x7fff,
    };
    for version in messages::SaslAuthenticateResponse::VERSIONS {
        assert_eq!(response.write(&mut Vec::new(), version), Err(long.clone()));
    }
}

#[test]
fn versions_are_those_of_kafka_4_4() {
    let api = |key: ApiKey| (key.number(), key.api().version_min, key.api().version_max);
    assert_eq!(api(ApiKey::Produce), (0, 3, 13));
    assert_eq!(api(ApiKey::Fetch), (1, 4, 18));
    assert_eq!(api(ApiKey::ApiVersions), (18, 0, 5));
    // Version 6 is unstable: it is known, and not offered.
    assert_eq!(api(ApiKey::InitProducerId), (22, 0, 5));
    assert!(messages::InitProducerIdRequest::VERSIONS.contains(&6));
    assert!(ApiKey::ALL.is_sorted());
    for key in ApiKey::ALL {
        assert_eq!(ApiKey::from_i16(key.number()), Some(*key));
    }
    assert!(messages::MetadataRequest::read(&mut Reader::new(&[0; 64]), 14).is_err());
    assert!(messages::MetadataRequest::default().write(&mut Vec::new(), -1).is_err());
}
