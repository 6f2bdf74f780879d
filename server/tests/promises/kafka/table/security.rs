//! H: who comes in, who may do what, and who has a password, of a broker that asks nobody.

use headwater_kafka::{
    ApiKey,
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse, AlterUserScramCredentialsRequest,
        AlterUserScramCredentialsResponse, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest,
        DeleteAclsResponse, DescribeAclsRequest, DescribeAclsResponse, DescribeClientQuotasRequest,
        DescribeClientQuotasResponse, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
        SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
        create_acls_request::AclCreation,
        delete_acls_request::DeleteAclsFilter,
        describe_client_quotas_request::ComponentData,
        describe_user_scram_credentials_request::UserName,
    },
};

use super::Look;
use crate::kafka::wire::Wire;

pub async fn look(wire: &mut Wire, look: &mut Look) {
    for version in 0..=1 {
        let chosen: SaslHandshakeResponse<'_> = wire
            .ask(ApiKey::SaslHandshake, version, &SaslHandshakeRequest::default())
            .await;
        look.same("H1", "handshake", (chosen.error_code, chosen.mechanisms.len()), (34, 0));
    }
    let request = SaslAuthenticateRequest::default();
    let told: SaslAuthenticateResponse<'_> = wire.ask(ApiKey::SaslAuthenticate, 2, &request).await;
    let words = "SaslAuthenticate request received after successful authentication";
    look.same(
        "H1",
        "authenticate",
        (told.error_code, told.error_message.as_deref()),
        (34, Some(words)),
    );
    acls(wire, look).await;
    users(wire, look).await;
    quotas(wire, look).await;
}

async fn acls(wire: &mut Wire, look: &mut Look) {
    let request = DescribeAclsRequest {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..DescribeAclsRequest::default()
    };
    let told: DescribeAclsResponse<'_> = wire.ask(ApiKey::DescribeAcls, 3, &request).await;
    let words = "No Authorizer is configured on the broker";
    look.same(
        "H2",
        "describe",
        (told.error_code, told.error_message.as_deref()),
        (54, Some(words)),
    );
    let creation = AclCreation {
        resource_type: 2,
        resource_name: "t".into(),
        resource_pattern_type: 3,
        principal: "User:alice".into(),
        host: "*".into(),
        operation: 3,
        permission_type: 3,
    };
    let request = CreateAclsRequest {
        creations: vec![creation],
    };
    let told: CreateAclsResponse<'_> = wire.ask(ApiKey::CreateAcls, 3, &request).await;
    let words = Some("No Authorizer is configured.");
    let result = &told.results[0];
    look.same(
        "H2",
        "create",
        (result.error_code, result.error_message.as_deref()),
        (54, words),
    );
    let filter = DeleteAclsFilter {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..DeleteAclsFilter::default()
    };
    let request = DeleteAclsRequest { filters: vec![filter] };
    let told: DeleteAclsResponse<'_> = wire.ask(ApiKey::DeleteAcls, 3, &request).await;
    let result = &told.filter_results[0];
    look.same(
        "H2",
        "delete",
        (result.error_code, result.error_message.as_deref()),
        (54, words),
    );
}

async fn described(wire: &mut Wire, users: Option<&[&'static str]>) -> DescribeUserScramCredentialsResponse<'static> {
    let named = |users: &[&'static str]| users.iter().map(|name| UserName { name: (*name).into() }).collect();
    let request = DescribeUserScramCredentialsRequest {
        users: users.map(named),
    };
    wire.ask(ApiKey::DescribeUserScramCredentials, 0, &request).await
}

/// The code and the words for one user.
async fn altered(wire: &mut Wire, request: AlterUserScramCredentialsRequest<'_>) -> (i16, Option<String>) {
    let told: AlterUserScramCredentialsResponse<'_> = wire.ask(ApiKey::AlterUserScramCredentials, 0, &request).await;
    assert_eq!(told.results.len(), 1);
    let result = &told.results[0];
    (result.error_code, result.error_message.as_deref().map(str::to_owned))
}

fn set(name: &'static str, mechanism: i8, iterations: i32) -> AlterUserScramCredentialsRequest<'static> {
    let upsertion = ScramCredentialUpsertion {
        name: name.into(),
        mechanism,
        iterations,
        salt: vec![1; 16].into(),
        salted_password: vec![2; 32].into(),
    };
    AlterUserScramCredentialsRequest {
        upsertions: vec![upsertion],
        ..AlterUserScramCredentialsRequest::default()
    }
}

async fn users(wire: &mut Wire, look: &mut Look) {
    for asked in [None, Some(&[][..])] {
        let told = described(wire, asked).await;
        let seen = (told.error_code, told.error_message.as_deref(), told.results.len());
        look.same("H3", "none", seen, (0, Some(""), 0));
    }
    let told = described(wire, Some(&["bob"])).await;
    let words = "Attempt to describe a user credential that does not exist: bob";
    let result = &told.results[0];
    look.same(
        "H3",
        "unknown",
        (result.error_code, result.error_message.as_deref()),
        (91, Some(words)),
    );
    let told = described(wire, Some(&["bob", "bob"])).await;
    let words = "Cannot describe SCRAM credentials for the same user twice in a single request: bob";
    let result = &told.results[0];
    look.same(
        "H3",
        "twice",
        (result.error_code, result.error_message.as_deref()),
        (92, Some(words)),
    );
    let words = |text: &str| Some(text.to_owned());
    for (name, mechanism, iterations, kafkas) in [
        ("bob", 1, 4095, (93, words("Too few iterations"))),
        ("bob", 9, 4096, (33, words("Unknown SCRAM mechanism"))),
        ("", 1, 4096, (93, words("Username must not be empty"))),
    ] {
        let seen = altered(wire, set(name, mechanism, iterations)).await;
        look.same("H3", "alter", seen, kafkas);
    }
    let seen = altered(wire, set("bob", 1, 16_385)).await;
    look.other("H3", "many iterations", seen.0, (93, 0));
    let remove = || ScramCredentialDeletion {
        name: "bob".into(),
        mechanism: 1,
    };
    let twice = AlterUserScramCredentialsRequest {
        deletions: vec![remove(), remove()],
        ..AlterUserScramCredentialsRequest::default()
    };
    let kafkas = (
        92,
        words("A user credential cannot be altered twice in the same request"),
    );
    look.same("H3", "altered twice", altered(wire, twice).await, kafkas);
    let once = || AlterUserScramCredentialsRequest {
        deletions: vec![remove()],
        ..AlterUserScramCredentialsRequest::default()
    };
    assert_eq!(altered(wire, once()).await.0, 0);
    let kafkas = (91, words("Attempt to delete a user credential that does not exist"));
    look.same("H3", "unknown", altered(wire, once()).await, kafkas);
}

/// Each component with how it is matched, and what it is matched with.
async fn quotas_of(
    wire: &mut Wire,
    components: &[(&'static str, i8, Option<&'static str>)],
    strict: bool,
) -> DescribeClientQuotasResponse<'static> {
    let component = |(kind, match_type, name): &(&'static str, i8, Option<&'static str>)| ComponentData {
        entity_type: (*kind).into(),
        match_type: *match_type,
        r#match: name.map(Into::into),
    };
    let request = DescribeClientQuotasRequest {
        components: components.iter().map(component).collect(),
        strict,
    };
    wire.ask(ApiKey::DescribeClientQuotas, 1, &request).await
}

/// The code and the words for one entity.
async fn limited(
    wire: &mut Wire,
    entity: &[(&'static str, Option<&'static str>)],
    (key, value): (&'static str, Option<f64>),
    validate_only: bool,
) -> (i16, Option<String>) {
    let part = |(kind, name): &(&'static str, Option<&'static str>)| EntityData {
        entity_type: (*kind).into(),
        entity_name: name.map(Into::into),
    };
    let op = OpData {
        key: key.into(),
        value: value.unwrap_or_default(),
        remove: value.is_none(),
    };
    let request = AlterClientQuotasRequest {
        entries: vec![EntryData {
            entity: entity.iter().map(part).collect(),
            ops: vec![op],
        }],
        validate_only,
    };
    let told: AlterClientQuotasResponse<'_> = wire.ask(ApiKey::AlterClientQuotas, 1, &request).await;
    assert_eq!((told.entries.len(), told.entries[0].entity.len()), (1, entity.len()));
    let entry = &told.entries[0];
    (entry.error_code, entry.error_message.as_deref().map(str::to_owned))
}

async fn quotas(wire: &mut Wire, look: &mut Look) {
    const RATE: &str = "producer_byte_rate";
    let told = quotas_of(wire, &[], false).await;
    let seen = (
        told.error_code,
        told.error_message.as_deref(),
        told.entries.map(|all| all.len()),
    );
    look.same("H4", "none", seen, (0, Some(""), Some(0)));
    let ip_words = "Invalid entity filter component combination. IP filter component should not be used with user or clientId \
                    filter component.";
    for (components, kafkas) in [
        (&[("foo", 2, None)][..], (35, "Unsupported entity type foo")),
        (&[("ip", 2, None), ("user", 2, None)], (42, ip_words)),
        (&[("user", 9, None)], (42, "Unknown match type 9")),
        (
            &[("user", 2, None), ("user", 1, None)],
            (42, "Entity type user cannot appear more than once in the filter."),
        ),
    ] {
        let told = quotas_of(wire, components, false).await;
        assert!(told.entries.is_none());
        let words = told.error_message.as_deref();
        look.same("H4", "filter", (told.error_code, words), (kafkas.0, Some(kafkas.1)));
    }
    let alice = &[("user", Some("alice"))][..];
    for (entity, (key, value), kafkas) in [
        (alice, ("foo", 1.0), "Invalid configuration key foo"),
        (alice, (RATE, -1.0), "Quota producer_byte_rate must be greater than 0"),
        (alice, (RATE, 1.5), "producer_byte_rate cannot be a fractional value."),
        (
            &[("ip", Some("notanip!!"))],
            ("connection_creation_rate", 1.0),
            "notanip!! is not a valid IP or resolvable host.",
        ),
        (
            &[("foo", Some("x"))],
            (RATE, 1.0),
            "Unhandled client quota entity type: foo",
        ),
        (&[], (RATE, 1.0), "Invalid empty client quota entity"),
    ] {
        let seen = limited(wire, entity, (key, Some(value)), false).await;
        look.same("H4", "alter", seen, (42, Some(kafkas.to_owned())));
    }
    // What follows was not asked of Kafka.
    let both = &[("user", Some("alice")), ("client-id", None)][..];
    assert_eq!(limited(wire, alice, (RATE, Some(9e9)), true).await, (0, None));
    for (entity, key, value) in [
        (alice, RATE, 9e9),
        (alice, "request_percentage", 1e4),
        (both, RATE, 8e9),
    ] {
        assert_eq!(limited(wire, entity, (key, Some(value)), false).await, (0, None));
    }
    for (components, strict, expected) in [
        (&[][..], false, &[1_usize, 2][..]),
        (&[("user", 0, Some("alice"))], false, &[1, 2]),
        (&[("user", 0, Some("alice"))], true, &[2]),
        (&[("user", 2, None), ("client-id", 1, None)], true, &[1]),
        (&[("user", 1, None)], false, &[]),
        (&[("ip", 2, None)], false, &[]),
    ] {
        let told = quotas_of(wire, components, strict).await;
        let mut seen: Vec<usize> = told.entries.unwrap().iter().map(|entry| entry.values.len()).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected, "{components:?} {strict}");
    }
    for (entity, key) in [(alice, RATE), (alice, "request_percentage"), (both, RATE), (both, RATE)] {
        assert_eq!(limited(wire, entity, (key, None), false).await, (0, None));
    }
    assert_eq!(quotas_of(wire, &[], false).await.entries.unwrap().len(), 0);
}
