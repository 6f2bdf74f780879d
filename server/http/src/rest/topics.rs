//! Topics: which there are, how they are set, and how that changes.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use headwater_client::{TopicAlteration, TopicDescription, TopicListing};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    extract::{Json, Path, Query},
    members::encoded,
    page::{Page, PageQuery},
    partitions::Partition,
};
use crate::{caller::Caller, problem::Problem};

/// A topic in a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Topic {
    /// Its name.
    name: String,
    /// Its identity, which no later topic of the same name shares.
    id: String,
    /// How many partitions it has.
    partitions: usize,
    /// Whether the cluster keeps something of its own there.
    internal: bool,
}

/// Internal topics are those whose names begin so.
const INTERNAL: &str = "__";

impl From<TopicListing> for Topic {
    fn from(topic: TopicListing) -> Topic {
        Topic {
            internal: topic.name.as_str().starts_with(INTERNAL),
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            partitions: topic.partitions,
        }
    }
}

/// A topic to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTopic {
    /// Its name: 1 to 249 of the letters a-z A-Z 0-9 . _ -
    #[schema(min_length = 1, max_length = 249, pattern = "^[a-zA-Z0-9._-]+$")]
    name: String,
    /// How many partitions; the broker's default if it is not said.
    #[schema(minimum = 1)]
    partitions: Option<i32>,
    /// How many brokers keep each; the broker's default if it is not said.
    #[schema(minimum = 1, maximum = 32_767)]
    replication_factor: Option<i16>,
    /// Settings of its own, such as `retention.ms`.
    #[serde(default)]
    config: BTreeMap<String, String>,
    /// Only look whether it could be made.
    #[serde(default)]
    validate_only: bool,
}

/// A topic that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Created {
    /// Its name.
    name: String,
    /// Its identity.
    id: String,
    /// How many partitions it has.
    partitions: usize,
}

/// A topic with all there is to know of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Described {
    /// Its name.
    name: String,
    /// Its identity.
    id: String,
    /// Its partitions.
    partitions: Vec<Partition>,
    /// Every setting in force.
    config: Vec<Setting>,
}

/// A setting in force.
#[derive(Serialize, ToSchema)]
pub(crate) struct Setting {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
    /// Whether the topic has set it itself; it follows the broker otherwise.
    own: bool,
}

/// A change to a topic.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alteration {
    /// How many partitions it is to have: as many as now, or more.
    #[schema(minimum = 1)]
    partitions: Option<i32>,
    /// Settings and their values.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Settings that go back to the broker's.
    #[serde(default)]
    reset: Vec<String>,
    /// Only look whether it could be changed.
    #[serde(default)]
    validate_only: bool,
}

fn settings(description: &TopicDescription) -> Vec<Setting> {
    let configs = description.configs.iter();
    configs
        .map(|config| Setting {
            name: config.name.clone(),
            value: config.value.clone(),
            own: config.is_own,
        })
        .collect()
}

/// Lists topics.
#[utoipa::path(get, path = "/v1/topics", tag = "topics", operation_id = "list_topics", params(PageQuery),
    responses((status = 200, description = "A page of them, by name", body = Page<Topic>)))]
pub(crate) async fn list(caller: Caller, Query(page): Query<PageQuery>) -> Result<axum::Json<Page<Topic>>, Problem> {
    let topics = caller.client().admin().topics().await?;
    page.cut(topics, |topic| topic.name.as_str(), Topic::from)
        .map(axum::Json)
}

/// Makes a topic.
#[utoipa::path(post, path = "/v1/topics", tag = "topics", operation_id = "create_topic", request_body = NewTopic,
    responses((status = 201, description = "It can be used on every core", body = Created),
        (status = 200, description = "With `validate_only`: it could be made", body = Created)))]
pub(crate) async fn create(caller: Caller, new: Json<NewTopic>) -> Result<Response, Problem> {
    let NewTopic {
        name,
        partitions,
        replication_factor,
        config,
        validate_only,
    } = new.value;
    let mut topic = headwater_client::NewTopic::new(&name).validate_only(validate_only);
    if let Some(partitions) = partitions {
        topic = topic.partitions(partitions);
    }
    if let Some(replicas) = replication_factor {
        topic = topic.replication_factor(replicas);
    }
    topic = config
        .into_iter()
        .fold(topic, |topic, (name, value)| topic.config(name, value));
    let created = caller.client().admin().create_topic(topic).await?;
    let status = if validate_only {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let location = HeaderValue::try_from(format!("/v1/topics/{}", encoded(&name)));
    let body = axum::Json(Created {
        name,
        id: created.id.to_string(),
        partitions: created.partitions,
    });
    let mut response = (status, body).into_response();
    if let Some(location) = location.ok().filter(|_| !validate_only) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Describes a topic: its partitions and its settings.
#[utoipa::path(get, path = "/v1/topics/{topic}", tag = "topics", operation_id = "describe_topic",
    params(("topic" = String, Path, description = "The topic")),
    responses((status = 200, description = "The topic", body = Described)))]
pub(crate) async fn describe(caller: Caller, Path(topic): Path<String>) -> Result<axum::Json<Described>, Problem> {
    let described = caller.client().admin().describe_topic(&topic).await?;
    Ok(axum::Json(Described {
        config: settings(&described),
        name: described.name.to_string(),
        id: described.id.to_string(),
        partitions: described.partitions.into_iter().map(Partition::from).collect(),
    }))
}

/// Changes a topic: its settings, its number of partitions, or both; all of it or nothing.
#[utoipa::path(patch, path = "/v1/topics/{topic}", tag = "topics", operation_id = "alter_topic",
    params(("topic" = String, Path, description = "The topic")), request_body = Alteration,
    responses((status = 204, description = "It is in force on every core, or would be")))]
pub(crate) async fn alter(
    caller: Caller,
    Path(topic): Path<String>,
    change: Json<Alteration>,
) -> Result<StatusCode, Problem> {
    let Alteration {
        partitions,
        set,
        reset,
        validate_only,
    } = change.value;
    let mut alteration = TopicAlteration::of(topic).validate_only(validate_only);
    if let Some(count) = partitions {
        alteration = alteration.partitions(count);
    }
    alteration = set
        .into_iter()
        .fold(alteration, |change, (name, value)| change.set(name, value));
    alteration = reset.into_iter().fold(alteration, TopicAlteration::reset);
    caller.client().admin().alter_topic(alteration).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a topic with all its records.
#[utoipa::path(delete, path = "/v1/topics/{topic}", tag = "topics", operation_id = "delete_topic",
    params(("topic" = String, Path, description = "The topic")),
    responses((status = 204, description = "It is gone")))]
pub(crate) async fn delete(caller: Caller, Path(topic): Path<String>) -> Result<StatusCode, Problem> {
    caller.client().admin().delete_topic(&topic).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists every setting of a topic with its value.
#[utoipa::path(get, path = "/v1/topics/{topic}/config", tag = "topics", operation_id = "topic_config",
    params(("topic" = String, Path, description = "The topic")),
    responses((status = 200, description = "Its settings", body = Vec<Setting>)))]
pub(crate) async fn config(caller: Caller, Path(topic): Path<String>) -> Result<axum::Json<Vec<Setting>>, Problem> {
    let described = caller.client().admin().describe_topic(&topic).await?;
    Ok(axum::Json(settings(&described)))
}
