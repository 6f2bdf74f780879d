//! Users and what is kept of their passwords: described and altered, as kafka-configs does.

use std::collections::{HashMap, HashSet};

use headwater_kafka::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    alter_user_scram_credentials_request::ScramCredentialUpsertion,
    alter_user_scram_credentials_response::AlterUserScramCredentialsResult,
    describe_user_scram_credentials_response::{CredentialInfo, DescribeUserScramCredentialsResult},
};
use headwater_protocol::{
    error::ErrorCode,
    scram::{ITERATIONS_MAX, ITERATIONS_MIN, Keys, Mechanism, SALT_LEN_MAX},
};

use super::super::asking::Asking;
use crate::model::{
    access::UserDescription,
    op::{Op, Outcome},
    refusal::Refusal,
};

pub(in crate::session::kafka) async fn describe(
    asking: &Asking,
    request: DescribeUserScramCredentialsRequest<'_>,
) -> DescribeUserScramCredentialsResponse<'static> {
    let asked = request.users.filter(|users| !users.is_empty());
    let asked: Option<Vec<String>> = asked.map(|users| users.into_iter().map(|user| user.name.into_owned()).collect());
    let described = match asking.perform(Op::DescribeUsers(asked.clone())).await {
        Ok(Outcome::Users(described)) => described,
        done => {
            let refusal = done.err().unwrap_or_else(Refusal::stopping);
            return DescribeUserScramCredentialsResponse {
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
                ..DescribeUserScramCredentialsResponse::default()
            };
        }
    };
    let results = match asked {
        None => described.into_iter().map(told).collect(),
        Some(names) => named(asking, names, described),
    };
    DescribeUserScramCredentialsResponse {
        error_message: Some("".into()),
        results,
        ..DescribeUserScramCredentialsResponse::default()
    }
}

/// Each that was named, once.
fn named(
    asking: &Asking,
    names: Vec<String>,
    described: Vec<UserDescription>,
) -> Vec<DescribeUserScramCredentialsResult<'static>> {
    let mut known: HashMap<String, UserDescription> =
        described.into_iter().map(|user| (user.name.clone(), user)).collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for name in &names {
        *counts.entry(name.clone()).or_default() += 1;
    }
    let mut seen = HashSet::new();
    let once = names.into_iter().filter(|name| seen.insert(name.clone()));
    let result = |name: String| {
        let refused = |code: ErrorCode, message: String| DescribeUserScramCredentialsResult {
            user: name.clone().into(),
            error_code: asking.tells(code),
            error_message: Some(message.into()),
            ..DescribeUserScramCredentialsResult::default()
        };
        if counts.get(&name).is_some_and(|count| *count > 1) {
            let message =
                format!("Cannot describe SCRAM credentials for the same user twice in a single request: {name}");
            return refused(ErrorCode::DuplicateResource, message);
        }
        if let Some(user) = known.remove(&name) {
            told(user)
        } else {
            let message = format!("Attempt to describe a user credential that does not exist: {name}");
            refused(ErrorCode::ResourceNotFound, message)
        }
    };
    once.map(result).collect()
}

fn told(user: UserDescription) -> DescribeUserScramCredentialsResult<'static> {
    let info = |(mechanism, iterations): (Mechanism, u32)| CredentialInfo {
        mechanism: mechanism.number(),
        iterations: iterations.cast_signed(),
    };
    DescribeUserScramCredentialsResult {
        user: user.name.into(),
        error_message: Some("".into()),
        credential_infos: user.mechanisms.into_iter().map(info).collect(),
        ..DescribeUserScramCredentialsResult::default()
    }
}

pub(in crate::session::kafka) async fn alter(
    asking: &Asking,
    request: AlterUserScramCredentialsRequest<'_>,
) -> AlterUserScramCredentialsResponse<'static> {
    let mut changes: Vec<(String, Result<Op, Refusal>)> = Vec::new();
    for deletion in request.deletions {
        let user = deletion.name.into_owned();
        let op = known(deletion.mechanism).map(|mechanism| Op::RemoveUser(user.clone(), Some(mechanism)));
        changes.push((user, op));
    }
    for upsertion in request.upsertions {
        let user = upsertion.name.to_string();
        let op = keys(upsertion).map(|keys| Op::SetUser(user.clone(), keys.into()));
        changes.push((user, op));
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (user, _) in &changes {
        *counts.entry(user.clone()).or_default() += 1;
    }
    let mut told = HashSet::new();
    let mut results = Vec::new();
    // Whoever may not is told that, whatever is wrong with what it asks for.
    let may = asking.need_cluster(crate::model::access::Operation::Alter);
    for (user, op) in changes {
        let is_twice = counts.get(&user).is_some_and(|count| *count > 1);
        if is_twice && !told.insert(user.clone()) {
            continue;
        }
        let done = match (&may, op) {
            (Err(refusal), _) => Err(refusal.clone()),
            (Ok(()), _) if is_twice => {
                let message = "A user credential cannot be altered twice in the same request";
                Err(Refusal::new(ErrorCode::DuplicateResource, message))
            }
            (Ok(()), Ok(op)) => asking.perform(op).await.map(drop),
            (Ok(()), Err(refusal)) => Err(refusal),
        };
        results.push(match done {
            Ok(()) => AlterUserScramCredentialsResult {
                user: user.into(),
                ..AlterUserScramCredentialsResult::default()
            },
            Err(refusal) => AlterUserScramCredentialsResult {
                user: user.into(),
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
            },
        });
    }
    AlterUserScramCredentialsResponse {
        results,
        ..AlterUserScramCredentialsResponse::default()
    }
}

fn known(mechanism: i8) -> Result<Mechanism, Refusal> {
    let unknown = || Refusal::new(ErrorCode::UnsupportedSaslMechanism, "Unknown SCRAM mechanism");
    Mechanism::numbered(mechanism).ok_or_else(unknown)
}

fn keys(upsertion: ScramCredentialUpsertion<'_>) -> Result<Keys, Refusal> {
    let refuse = |message: &str| Err(Refusal::new(ErrorCode::UnacceptableCredential, message));
    if upsertion.name.is_empty() {
        return refuse("Username must not be empty");
    }
    let mechanism = known(upsertion.mechanism)?;
    let iterations = u32::try_from(upsertion.iterations).unwrap_or(0);
    if iterations < ITERATIONS_MIN {
        return refuse("Too few iterations");
    }
    if iterations > ITERATIONS_MAX {
        return refuse("Too many iterations");
    }
    if upsertion.salt.len() > SALT_LEN_MAX {
        return refuse("The salt is too long");
    }
    if upsertion.salted_password.len() != mechanism.key_len() {
        return refuse("The salted password has another length than the mechanism's hash");
    }
    let salt = upsertion.salt.into_owned();
    Ok(Keys::of_salted(mechanism, &upsertion.salted_password, salt, iterations))
}
