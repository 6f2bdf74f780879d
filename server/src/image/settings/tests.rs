use super::*;
use crate::model::op::SettingChange;

fn of(entries: &[(&str, &str)]) -> Result<TopicSettings, SettingError> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    TopicSettings::of_new_topic(&overrides(&entries)?, &Config::default())
}

#[test]
fn a_topic_follows_the_broker_where_it_sets_nothing() {
    let entries = of(&[]).unwrap().entries(2);
    assert_eq!(
        entries.each_ref().map(|(key, value)| (*key, value.as_str())),
        [
            ("cleanup.policy", "delete"),
            ("delete.retention.ms", "86400000"),
            ("durability", "disk"),
            ("max.compaction.lag.ms", "9223372036854775807"),
            ("max.message.bytes", "4194304"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.type", "CreateTime"),
            ("min.cleanable.dirty.ratio", "0.5"),
            ("min.compaction.lag.ms", "0"),
            ("min.insync.replicas", "2"),
            ("retention.bytes", "-1"),
            ("retention.ms", "604800000"),
            ("segment.bytes", "1073741824"),
            ("segment.ms", "604800000"),
        ]
    );
}

#[test]
fn every_key_can_be_set_and_reads_back_as_it_is_described() {
    let set = [
        ("cleanup.policy", "compact,delete"),
        ("delete.retention.ms", "5"),
        ("durability", "memory"),
        ("max.compaction.lag.ms", "7000"),
        ("max.message.bytes", "65536"),
        ("message.timestamp.after.max.ms", "9223372036854775807"),
        ("message.timestamp.before.max.ms", "60000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.125"),
        ("min.compaction.lag.ms", "6"),
        ("min.insync.replicas", "3"),
        ("retention.bytes", "1000000"),
        ("retention.ms", "-1"),
        ("segment.bytes", "131072"),
        ("segment.ms", "60000"),
    ];
    let settings = of(&set).unwrap();
    assert_eq!(
        settings
            .entries(1)
            .each_ref()
            .map(|(key, value)| (*key, value.as_str())),
        set
    );
}

#[test]
fn what_is_not_valid_is_refused_with_what_is() {
    for (entries, expected) in [
        (
            &[("retention.hours", "1")][..],
            "there is no topic configuration \"retention.hours\"; there are",
        ),
        (
            &[("segment.ms", "60000"), ("segment.ms", "60000")],
            "segment.ms is given more than once",
        ),
        (
            &[("cleanup.policy", "compact,compact")],
            "allowed is \"delete\", \"compact\", \"compact,delete\", or nothing, to keep all",
        ),
        (
            &[("min.cleanable.dirty.ratio", "1.5")],
            "allowed is a number from 0 to 1, such as 0.5",
        ),
        (
            &[("message.timestamp.type", "now")],
            "\"CreateTime\" or \"LogAppendTime\"",
        ),
        (
            &[("segment.bytes", "1")],
            "segment.bytes = \"1\" is not valid: allowed is 64KiB to 2GiB",
        ),
        (&[("segment.ms", "-1")], "allowed is a time, such as 10ms"),
        (&[("segment.ms", "0")], "allowed is 1 ms or more"),
        (&[("retention.ms", "9223372036854775808")], "allowed is 0 ms or more"),
        (&[("min.insync.replicas", "0")], "allowed is a number from 1 on"),
        (&[("durability", "none")], "allowed is \"disk\" or \"memory\""),
        (
            &[("max.message.bytes", "8388608")],
            "at most the broker's log.batch_size_bytes_max, 4194304",
        ),
        (
            &[("max.message.bytes", "131072"), ("segment.bytes", "65536")],
            "at most segment.bytes, 65536",
        ),
    ] {
        let message = of(entries).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_engine_is_told_what_is_in_force() {
    let settings = of(&[("segment.bytes", "131072"), ("message.timestamp.type", "LogAppendTime")]).unwrap();
    let mut config = Config::default();
    config.flush.writes_in_flight_max = 3;
    config.producers.count_max = 5;
    config.log.index_interval_bytes = ByteSize::new(8192);
    let log = settings.log_config(&config);
    assert_eq!(
        (log.segment_size_bytes, log.retention_ms),
        (131_072, Some(7 * 24 * 3_600_000))
    );
    assert_eq!(
        (log.batch.batch_size_max, log.timestamp_type),
        (131_072, TimestampType::LogAppendTime)
    );
    assert_eq!((log.flush.writes_in_flight_max, log.producers.count_max), (3, 5));
    assert_eq!(log.index_interval_bytes, 8192);
}

#[test]
fn a_topic_is_compacted_or_deleted_from_or_both_as_its_policy_says() {
    for (policy, deletes, compacts) in [
        ("delete", true, false),
        ("compact", false, true),
        ("compact,delete", true, true),
        ("delete, compact", true, true),
        ("", false, false),
    ] {
        let settings = of(&[
            ("cleanup.policy", policy),
            ("retention.bytes", "1000000"),
            ("max.compaction.lag.ms", "9223372036854775807"),
            ("min.cleanable.dirty.ratio", "0.25"),
        ]);
        let log = settings.unwrap().log_config(&Config::default());
        assert_eq!(
            (log.retention_ms.is_some(), log.retention_bytes.is_some()),
            (deletes, deletes)
        );
        let expected = CompactionConfig {
            dirty_ratio_min: 0.25,
            ..CompactionConfig::default()
        };
        assert_eq!(log.compaction, compacts.then_some(expected));
    }
}

#[test]
fn a_setting_is_described_with_what_it_stands_over_and_a_list_in_the_order_in_which_it_was_set() {
    let set = [("cleanup.policy", "delete, compact"), ("retention.ms", "1d")];
    let overrides = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let described = described(&overrides, &Config::default(), 1);
    let own: Vec<_> = described.iter().filter(|setting| setting.own).collect();
    let seen: Vec<_> = own
        .iter()
        .map(|setting| (setting.name, &*setting.value, &*setting.inherited))
        .collect();
    assert_eq!(
        seen,
        [
            ("cleanup.policy", "delete,compact", "delete"),
            ("retention.ms", "86400000", "604800000")
        ]
    );
}

#[test]
fn defaults_agree_with_the_engine_except_for_larger_batches() {
    let config = Config::default();
    let told = of(&[]).unwrap().log_config(&config);
    let own = LogConfig {
        batch: told.batch,
        ..LogConfig::default()
    };
    assert_eq!(format!("{told:?}"), format!("{own:?}"));
}

#[test]
fn a_batch_never_outgrows_its_segment_or_a_broker_limit_that_was_lowered() {
    assert_eq!(
        of(&[("segment.bytes", "65536")]).unwrap().batch_size_bytes_max,
        ByteSize::new(65_536)
    );
    let mut config = Config::default();
    config.log.batch_size_bytes_max = ByteSize::new(1 << 20);
    let overrides = BTreeMap::from([(MAX_MESSAGE_BYTES.to_owned(), "2097152".to_owned())]);
    assert!(TopicSettings::of_new_topic(&overrides, &config).is_err());
    let settings = TopicSettings::in_force(&overrides, &config);
    assert_eq!(settings.batch_size_bytes_max, ByteSize::new(1 << 20));
}

#[test]
fn what_a_broker_does_not_know_of_a_topics_settings_is_as_if_it_were_not_set() {
    let set = [
        ("retention.ms", "1000"),
        ("segment.ms", "soon"),
        ("segment.bytes", "1099511627776"),
        ("remote.storage.enable", "true"),
    ];
    let overrides = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert!(TopicSettings::check(&overrides, &Config::default()).is_err());
    let known = of(&[("retention.ms", "1000")]).unwrap();
    assert_eq!(TopicSettings::in_force(&overrides, &Config::default()), known);
}

#[test]
fn a_list_changes_by_what_it_is_when_that_is_decided() {
    let set = |policy: Option<&str>| -> BTreeMap<String, String> {
        let policy = policy.map(|policy| (CLEANUP_POLICY.to_owned(), policy.to_owned()));
        policy
            .into_iter()
            .chain([(RETENTION_MS.to_owned(), "1000".to_owned())])
            .collect()
    };
    let with = |elements: &str| SettingChange::With(elements.to_owned());
    let without = |elements: &str| SettingChange::Without(elements.to_owned());
    for (now, change, after) in [
        (None, with("compact"), "delete,compact"),
        (Some("delete"), with("compact"), "delete,compact"),
        (Some("delete,compact"), with("compact"), "delete,compact"),
        (Some("delete,compact"), without("delete"), "compact"),
        (Some("compact"), without("compact"), ""),
        (Some("compact"), without("delete"), "compact"),
        (Some(""), with(" delete , compact "), "delete,compact"),
    ] {
        let changes = [(CLEANUP_POLICY.to_owned(), change)];
        let altered = altered(&set(now), &changes, false).unwrap();
        assert_eq!(altered, set(Some(after)), "{now:?} {changes:?}");
    }
    let changes = [(SEGMENT_MS.to_owned(), SettingChange::Value(" 60000 ".to_owned()))];
    let all = altered(&set(Some("compact")), &changes, true).unwrap();
    assert_eq!(all, BTreeMap::from([(SEGMENT_MS.to_owned(), "60000".to_owned())]));
    let no_list = [(SEGMENT_MS.to_owned(), with("1"))];
    assert!(altered(&set(None), &no_list, false).is_err());
}

#[test]
fn times_may_be_what_they_may_be_in_kafka() {
    let most = i64::MAX.to_string();
    let least = [
        ("delete.retention.ms", "0"),
        ("max.compaction.lag.ms", "1"),
        ("message.timestamp.after.max.ms", "0"),
        ("message.timestamp.before.max.ms", "0"),
        ("min.compaction.lag.ms", "0"),
        ("retention.ms", "0"),
        ("segment.ms", "1"),
    ];
    for (key, least) in least {
        for value in [least, &most] {
            let described = of(&[(key, value)]).unwrap().entries(1);
            let seen = described.iter().find(|(name, _)| *name == key).unwrap();
            assert_eq!(seen.1, value, "{key}");
        }
    }
    for value in ["-1", "-7"] {
        assert_eq!(of(&[("retention.bytes", value)]).unwrap().retention_bytes, None);
    }
}
