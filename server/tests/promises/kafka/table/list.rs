//! The probes by their numbers, and how we stand to each.

/// A probe of Kafka 4.4.0.
pub struct Probe {
    pub number: &'static str,
    pub stands: Stands,
    pub shown: Shown,
}

/// What we answer.
#[derive(Clone, Copy)]
pub enum Stands {
    /// The same, in all that was asked.
    Same,
    /// Deliberately something else, in part or in all.
    Other {
        why: &'static str,
        /// How docs/kafka.md says it.
        told: &'static str,
    },
    /// Nothing: it is not offered.
    NotBuilt,
    /// It asks how long a cluster takes when brokers are killed, which the tests of clusters show.
    Apart,
}

/// What shows it.
#[derive(Clone, Copy)]
pub enum Shown {
    /// Rows of this table.
    Rows,
    /// A test beside it, by its file and name.
    Test(&'static str, &'static str),
    /// Nothing could.
    Nowhere,
}

/// Each section with the number of its probes.
pub const SECTIONS: &[(&str, usize)] = &[
    ("A", 10),
    ("B", 29),
    ("C", 15),
    ("D", 7),
    ("E", 13),
    ("F", 13),
    ("G", 6),
    ("H", 9),
    ("I", 7),
];

use Shown::{Rows, Test};

const fn same(number: &'static str, shown: Shown) -> Probe {
    Probe {
        number,
        stands: Stands::Same,
        shown,
    }
}

const fn other(number: &'static str, shown: Shown, why: &'static str, told: &'static str) -> Probe {
    Probe {
        number,
        stands: Stands::Other { why, told },
        shown,
    }
}

const fn apart(number: &'static str) -> Probe {
    Probe {
        number,
        stands: Stands::Apart,
        shown: Shown::Nowhere,
    }
}

const fn not_built(number: &'static str) -> Probe {
    Probe {
        number,
        stands: Stands::NotBuilt,
        shown: Shown::Nowhere,
    }
}

#[rustfmt::skip]
pub const PROBES: &[Probe] = &[
    other("A1", Rows, "what is not built is not offered; what is has Kafka's versions", "Not offered are"),
    other("A2", Rows, "features are finalised by the cluster's own level", "features of a cluster"),
    same("A3", Test("framing", "a_client_learns_what_is_offered_whatever_version_it_asks_at")),
    same("A4", Test("framing", "a_client_learns_what_is_offered_whatever_version_it_asks_at")),
    same("A5", Test("framing", "what_is_no_request_of_kafkas_protocol_closes_its_connection_and_nothing_else")),
    other("A6", Rows, "a core's memory for requests is bounded", "a frame"),
    same("A7", Test("framing", "what_is_no_request_of_kafkas_protocol_closes_its_connection_and_nothing_else")),
    same("A8", Test("framing", "answers_come_in_the_order_of_the_requests_whatever_takes_long")),
    same("A9", Rows),
    same("A10", Test("versions", "every_version_that_is_offered_is_answered")),
    same("B1", Rows),
    same("B2", Rows),
    same("B3", Rows),
    other("B4", Rows, "what is sent is stored, or refused: Kafka drops a tail, and refuses what could be stored", "several batches for one partition are taken"),
    same("B5", Rows),
    same("B6", Rows),
    other("B7", Rows, "records with gaps between their offsets would stand at other offsets than they say", "records whose offsets have gaps"),
    other("B8", Rows, "the base offset is stamped anyway", "a base offset other than 0"),
    same("B9", Rows),
    other("B10", Rows, "one record is named, the one farthest off, and the earliest bound is that of the number", "records that are refused"),
    same("B11", Rows),
    same("B12", Rows),
    same("B13", Rows),
    same("B14", Rows),
    same("B15", Rows),
    other("B16", Rows, "what was refused is not overtaken by what its producer sent behind it", "an idempotent producer that is not known"),
    other("B17", Rows, "a producer may have megabytes in flight", "batches of a producer that are known again"),
    same("B18", Rows),
    same("B19", Rows),
    same("B20", Rows),
    other("B21", Rows, "only the broker stamps its time", "a batch that says that it has the broker's time"),
    same("B22", Rows),
    other("B23", Rows, "nothing is compressed again: the setting may be `producer` only", "`compression.type` to `producer`"),
    other("B24", Rows, "the code says what is wrong", "records that cannot be opened"),
    same("B25", Rows),
    other("B26", Rows, "the code says what is wrong", "records that cannot be opened"),
    other("B27", Rows, "retention and searches go by times", "times before 1970"),
    other("B28", Rows, "Kafka loses the first without a word", "the same partition twice in a request"),
    same("B29", Rows),
    same("C1", Rows),
    same("C2", Rows),
    same("C3", Test("records", "records_are_found_as_kafka_finds_them_at_every_version")),
    other("C4", Test("records", "records_are_found_as_kafka_finds_them_at_every_version"), "a part of a batch is of no use to a client", "a batch beyond the bytes that a fetch asks for"),
    other("C5", Test("records", "records_are_found_as_kafka_finds_them_at_every_version"), "a part of a batch is of no use to a client", "a batch beyond the bytes that a fetch asks for"),
    same("C6", Test("sessions", "a_session_is_told_what_is_new_of_the_partitions_that_it_has")),
    same("C7", Test("sessions", "a_session_is_told_what_is_new_of_the_partitions_that_it_has")),
    same("C8", Test("sessions", "a_session_is_told_what_is_new_of_the_partitions_that_it_has")),
    same("C9", Rows),
    same("C10", Rows),
    same("C11", Rows),
    same("C12", Rows),
    same("C13", Rows),
    same("C14", Rows),
    same("C15", Rows),
    same("D1", Test("records", "offsets_are_told_as_kafka_tells_them")),
    same("D2", Rows),
    other("D3", Rows, "no leader has written there yet", "an empty partition"),
    same("D4", Test("records", "offsets_are_told_as_kafka_tells_them")),
    same("D5", Rows),
    same("D6", Rows),
    other("D7", Rows, "whoever may delete a topic may delete its records", "deleting records"),
    other("E1", Test("records", "topics_are_made_when_they_are_named_or_asked_for"), "the answer waits until the topic is there", "a topic that is made because it is named"),
    other("E2", Rows, "names are not made into others", "topics `a.b` and `a_b`"),
    same("E3", Rows),
    other("E4", Test("cluster", "any_broker_names_the_nodes_of_all_and_a_client_that_asks_the_wrong_one_is_sent_to_the_leader"), "each core is a node", "each core is a node"),
    same("E5", Rows),
    other("E6", Rows, "a setting of our own is described too, and some defaults are others", "settings of topics"),
    same("E7", Rows),
    same("E8", Rows),
    other("E9", Rows, "a setting of our own is described too, and some defaults are others", "settings of topics"),
    other("E10", Rows, "what means nothing here is left out", "settings of brokers"),
    other("E11", Rows, "settings of brokers are read when they start", "settings of brokers"),
    same("E12", Test("topics", "partitions_are_described_so_many_at_a_time")),
    other("E13", Rows, "a topic that promises two copies and has one is refused", "`min.insync.replicas`"),
    same("F1", Rows),
    same("F2", Rows),
    other("F3", Rows, "what nobody could go on from is not committed", "of a group without a name, are refused"),
    same("F4", Rows),
    same("F5", Rows),
    other("F6", Rows, "what is not there is as it was to be", "of a partition that is not there"),
    other("F7", Rows, "the answer waits until the topic is there", "when the first group of all asks"),
    other("F8", Test("consumers", "heartbeats_that_are_wrong_are_refused_in_kafkas_words"), "a pattern is looked up at once", "a subscription by a pattern"),
    same("F9", Test("consumers", "a_classic_group_becomes_one_of_consumers_with_the_first_of_them_and_static_members_come_back")),
    not_built("F10"),
    not_built("F11"),
    other("F12", Test("groups", "a_member_joins_works_commits_and_leaves_and_the_next_one_goes_on_there"), "no topic id is kept with an offset", "their records have version 3"),
    other("F13", Rows, "groups begin sooner", "settings of brokers"),
    other("G1", Test("transactions", "transactions_are_answered_as_kafka_answers_them"), "the first is answered when there is an id", "the first producer id"),
    other("G2", Test("transactions", "transactions_are_answered_as_kafka_answers_them"), "the answer waits until the topic is there", "when the first group of all asks"),
    other("G3", Test("transactions", "transactions_are_answered_as_kafka_answers_them"), "versions 4 and 5 are for brokers, which ask each other otherwise", "`AddPartitionsToTxn`"),
    same("G4", Test("transactions", "transactions_are_answered_as_kafka_answers_them")),
    same("G5", Test("transactions", "transactions_are_answered_as_kafka_answers_them")),
    other("G6", Test("transactions", "transactions_are_answered_as_kafka_answers_them"), "a batch that was known again counts", "a producer's last timestamp"),
    same("H1", Rows),
    same("H2", Rows),
    other("H3", Rows, "passwords may be hashed more often than 16,384 times", "more than 16,384 iterations"),
    same("H4", Rows),
    not_built("H5"),
    same("H6", Rows),
    same("H7", Test("operators", "operators_are_told_of_one_broker_what_kafka_tells_them")),
    same("H8", Test("operators", "operators_are_told_of_one_broker_what_kafka_tells_them")),
    same("H9", Rows),
    same("I1", Test("cluster", "any_broker_names_the_nodes_of_all_and_a_client_that_asks_the_wrong_one_is_sent_to_the_leader")),
    apart("I2"),
    apart("I3"),
    apart("I4"),
    apart("I5"),
    apart("I6"),
    apart("I7"),
];
