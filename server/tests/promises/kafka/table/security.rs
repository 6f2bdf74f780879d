//! H: who comes in, who may do what, and who has a password, of a broker that asks nobody.

use headwater_kafka::{
    ApiKey,
    messages::{
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, CreateAclsRequest, CreateAclsResponse,
        DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest, DescribeAclsResponse,
        DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
        alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
        create_acls_request::AclCreation,
        delete_acls_request::DeleteAclsFilter,
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
