use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::table::SETTINGS;
use super::*;
use crate::client::Client;

/// Everything that a builder was told.
fn told(builder: &ClientBuilder) -> String {
    let settings = &builder.settings;
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        builder.bootstrap,
        settings.connection,
        settings.bootstrap_timeout,
        settings.call_timeout,
        settings.metadata_timeout,
        settings.metadata_age_max,
        settings.backoff,
        (&settings.tls, &settings.defaults),
    )
}

/// A value other than the default.
fn other(setting: &Setting) -> &'static str {
    match (setting.name, setting.default) {
        ("bootstrap", _) => "broker-1:1,broker-2:2",
        ("sasl_mechanism", _) => "SCRAM-SHA-512",
        ("acks", _) => "1",
        ("compression", _) => "zstd",
        ("start", _) => "earliest",
        ("offset_reset", _) => "latest",
        ("assignor", _) => "range",
        ("isolation", _) => "read_committed",
        ("client_id" | "group_id" | "instance_id", _) => "billing",
        ("idempotent", _) | (_, "true") => "false",
        ("tls", _) => "true",
        _ => "12345",
    }
}

#[test]
fn every_setting_reaches_a_place_of_its_own_by_each_of_its_names() {
    let untouched = told(&Client::builder());
    let mut places = HashMap::new();
    for setting in SETTINGS {
        let by_name = |name: &str| told(&Client::builder().set(name, other(setting)).unwrap());
        let changed = by_name(setting.name);
        assert_ne!(changed, untouched, "{} does nothing", setting.name);
        for alias in setting.kafka {
            assert_eq!(by_name(alias), changed, "{alias}");
            assert_eq!(by_name(&alias.replace('.', "_").to_uppercase()), changed, "{alias}");
        }
        if let Some(same) = places.insert(changed, setting.name) {
            panic!("{} does what {same} does", setting.name);
        }
    }
}

#[test]
fn the_defaults_of_the_table_are_those_in_force() {
    let untouched = told(&Client::builder());
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        let set = Client::builder().set(setting.name, setting.default).unwrap();
        assert_eq!(told(&set), untouched, "{}", setting.name);
    }
}

#[test]
fn no_name_means_two_things() {
    let mut known = BTreeSet::new();
    for setting in SETTINGS {
        let names: BTreeSet<_> = setting.names().map(normal).collect();
        for name in names {
            let foreign = FOREIGN.iter().find(|(names, _)| foreign::matches(names, &name));
            assert!(foreign.is_none(), "{name} is foreign as well");
            assert!(known.insert(name), "two settings are called as {}", setting.name);
        }
    }
}

#[test]
fn a_name_that_means_nothing_here_is_an_error_that_says_what_to_do_instead() {
    let error = |name: &str| Client::builder().set(name, "1").unwrap_err();
    let told = |name: &str| error(name).to_string();
    assert!(matches!(
        error("linger.msec"),
        Error::UnknownSetting {
            nearest: Some("linger.ms"),
            ..
        }
    ));
    assert!(told("bacth_bytes").ends_with("did you mean batch_bytes?"));
    assert!(matches!(error("zzz"), Error::UnknownSetting { nearest: None, .. }));
    for name in [
        "retries",
        "ssl.truststore.location",
        "KEY_SERIALIZER",
        "transactional.id",
    ] {
        assert!(
            matches!(error(name), Error::ForeignSetting { .. }),
            "{name}: {}",
            told(name)
        );
    }
    assert!(!error("retries").is_retriable());
}

#[test]
fn a_value_that_cannot_be_read_is_an_error_that_names_the_setting_and_what_is_expected() {
    for (name, value, expected) in [
        ("linger.ms", "soon", "linger: \"soon\" is not a time, such as 10ms"),
        ("linger.ms", "", "linger: \"\" is not a time"),
        ("linger.ms", "-1", "linger: \"-1\" is not a time"),
        ("batch.size", "99999999999999999999", "batch_bytes: "),
        ("frame_size_max", "8GiB", "frame_size_max: \"8GiB\" is not a size"),
        (
            "max.in.flight.requests.per.connection",
            "many",
            "in_flight_batches_max: \"many\" is not a number",
        ),
        ("acks", "2", "acks: \"2\" is none of all, -1, 1"),
        ("compression.type", "rar", "compression: "),
        (
            "enable.auto.commit",
            "yes",
            "auto_commit: \"yes\" is none of true, false",
        ),
        ("group.id", " ", "group_id: must not be empty"),
    ] {
        let message = Client::builder().set(name, value).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{name}={value}: {message}");
    }
}

#[test]
fn a_map_and_the_environment_say_the_same() {
    let pairs = [
        ("linger.ms", "5"),
        ("buffer.memory", "32MiB"),
        ("auto.offset.reset", "none"),
    ];
    let from_map = Client::builder().set_all(HashMap::from(pairs)).unwrap();
    let variables = pairs.map(|(name, value)| {
        let name = format!("APP_{}", name.replace('.', "_").to_uppercase());
        (OsString::from(name), OsString::from(value))
    });
    let others = [(OsString::from("HOME"), OsString::from_vec(vec![0xff]))];
    let mut from_env = Client::builder();
    set_from(&mut from_env, "APP_", variables.into_iter().chain(others)).unwrap();
    assert_eq!(told(&from_env), told(&from_map));

    let not_text = [(OsString::from("APP_ACKS"), OsString::from_vec(vec![0xff]))];
    let error = set_from(&mut from_env, "APP_", not_text.into_iter()).unwrap_err();
    assert!(error.to_string().contains("APP_ACKS is not UTF-8"), "{error}");
    assert!(Client::builder().set_all([("linger", "1"), ("nonsense", "1")]).is_err());
}

#[test]
fn the_reference_page_is_up_to_date() {
    let page = include_str!("../../../docs/client-settings.md");
    assert_eq!(page, settings_reference(), "renew it as it says");
}
