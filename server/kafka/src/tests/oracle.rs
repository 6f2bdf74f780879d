//! The same bytes as another implementation, which was made of the same definitions by other people: the crate `kafka-protocol`.

use proptest::prelude::*;

use super::CASES;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn another_implementation_reads_and_writes_the_same_bytes(source in proptest::collection::vec(any::<u8>(), 0..400)) {
        for case in CASES {
            for version in case.versions.clone().filter(|version| case.known_to_them.contains(version)) {
                let ours = (case.there_and_back)(&source, version);
                let theirs = (case.their_rewrite)(&ours, version);
                prop_assert_eq!(&ours, &theirs, "{} {}", case.name, version);
                prop_assert_eq!((case.rewrite)(&theirs, version), Ok(theirs), "{} {}", case.name, version);
            }
        }
    }
}
