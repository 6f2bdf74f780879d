//! The calls of Confluent's REST v3 that scripts use most: records in, and the list of topics. Their shapes are Confluent's.

use std::borrow::Cow;

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use headwater_client::{Error, ErrorCode, RecordMetadata};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use utoipa::ToSchema;

use super::{
    data::{Data, bounded},
    extract::{Path, is_json, not_json, whole},
    members::encoded,
    records::produce::{HEADERS_MAX, NewHeader, NewRecord, RECORDS_MAX, store},
    written::Written,
};
use crate::{caller::Caller, problem::Problem, service::Service};

/// A record as Confluent's REST has it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProduceRequest<'a> {
    /// The partition; chosen by the key if it is not said.
    #[schema(minimum = 0)]
    partition_id: Option<i32>,
    /// The headers in order.
    #[serde(borrow, default, deserialize_with = "bounded::<_, _, HEADERS_MAX>")]
    headers: Vec<ProduceHeader<'a>>,
    /// The key.
    #[serde(borrow)]
    key: Option<ProduceData<'a>>,
    /// The value.
    #[serde(borrow)]
    value: Option<ProduceData<'a>>,
}

/// A header.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProduceHeader<'a> {
    /// Its name.
    #[serde(borrow)]
    #[schema(value_type = String)]
    name: Cow<'a, str>,
    /// Its value, in base64.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    value: Option<Cow<'a, str>>,
}

/// A key or a value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProduceData<'a> {
    /// `BINARY` (base64, which it is if nothing is said), `STRING` or `JSON`.
    #[serde(borrow, rename = "type")]
    #[schema(value_type = Option<String>)]
    kind: Option<Cow<'a, str>>,
    /// What it is.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    data: Option<&'a RawValue>,
}

/// Clusters, as Confluent's REST lists them: there is one.
#[derive(Serialize, ToSchema)]
pub(crate) struct KafkaList {
    kind: &'static str,
    metadata: KafkaMetadata,
    #[schema(value_type = Vec<Object>)]
    data: Vec<serde_json::Value>,
}

/// Where something is.
#[derive(Serialize, ToSchema)]
pub(crate) struct KafkaMetadata {
    #[serde(rename = "self")]
    own: String,
    next: Option<String>,
}

impl KafkaList {
    fn new(kind: &'static str, path: String, data: Vec<serde_json::Value>) -> KafkaList {
        KafkaList {
            kind,
            metadata: KafkaMetadata { own: path, next: None },
            data,
        }
    }
}

fn decode(encoded: &str) -> Result<Vec<u8>, Problem> {
    let decoded = STANDARD.decode(encoded);
    decoded.map_err(|error| Problem::invalid(format!("base64 cannot be read: {error}")))
}

impl<'a> ProduceData<'a> {
    fn read(&self) -> Result<Option<Data<'a>>, Problem> {
        let Some(data) = self.data.filter(|data| data.get() != "null") else {
            return Ok(None);
        };
        let text = || {
            let text: Result<Cow<'_, str>, _> = serde_json::from_str(data.get());
            text.map_err(|_other| Problem::invalid("data of the types BINARY and STRING is a string"))
        };
        let bytes = match self.kind.as_deref() {
            None | Some("BINARY") => Cow::Owned(decode(&text()?)?),
            Some("STRING") => Cow::Owned(text()?.into_owned().into_bytes()),
            Some("JSON") => Cow::Borrowed(data.get().as_bytes()),
            Some(other) => {
                let problem = Problem::invalid(format!("the type {other:?} is not known here"));
                return Err(problem.next("use BINARY, STRING or JSON; there is no schema registry"));
            }
        };
        Ok(Some(Data(bytes)))
    }

    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("BINARY")
    }
}

impl<'a> ProduceRequest<'a> {
    fn read(&'a self) -> Result<NewRecord<'a>, Problem> {
        let header = |header: &'a ProduceHeader<'_>| {
            let value = header.value.as_deref().map(decode).transpose()?;
            Ok(NewHeader {
                name: Cow::Borrowed(header.name.as_ref()),
                value: value.map(Cow::Owned).map(Data),
            })
        };
        let read = |data: &Option<ProduceData<'a>>| data.as_ref().map_or(Ok(None), ProduceData::read);
        let headers: Result<Vec<NewHeader<'a>>, Problem> = self.headers.iter().map(header).collect();
        Ok(NewRecord {
            key: read(&self.key)?,
            value: read(&self.value)?,
            headers: headers?,
            partition: self.partition_id,
            timestamp: None,
        })
    }
}

fn must_be_own(service: &Service, cluster: &str) -> Result<(), Problem> {
    if service.settings.cluster_id == cluster {
        Ok(())
    } else {
        Err(Problem::new(ErrorCode::ResourceNotFound, "there is no such cluster")
            .next("GET /kafka/v3/clusters tells the id"))
    }
}

/// Stores records, in the form of Confluent's REST v3: one object, or several one behind the other, which are answered line by line.
#[utoipa::path(post, path = "/kafka/v3/clusters/{cluster}/topics/{topic}/records", tag = "kafka", operation_id = "kafka_produce",
    params(("cluster" = String, Path, description = "The id of the cluster"), ("topic" = String, Path, description = "The topic")),
    request_body = ProduceRequest<'static>,
    responses((status = 200, description = "What became of each", body = Object)))]
pub(crate) async fn produce(
    State(service): State<Service>,
    caller: Caller,
    Path((cluster, topic)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    if !is_json(&headers) {
        return Err(not_json(&headers));
    }
    must_be_own(&service, &cluster)?;
    let body = whole(request, &service).await?;
    let mut requests: Vec<ProduceRequest<'_>> = Vec::new();
    for read in serde_json::Deserializer::from_slice(&body.bytes).into_iter() {
        if requests.len() == RECORDS_MAX {
            return Err(Problem::invalid(format!(
                "there are more than {RECORDS_MAX} records in the request"
            )));
        }
        requests.push(read.map_err(|error| Problem::invalid(format!("the body is not as it should be: {error}")))?);
    }
    let records: Result<Vec<NewRecord<'_>>, Problem> = requests.iter().map(ProduceRequest::read).collect();
    let records = records?;
    if records.is_empty() {
        return Err(Problem::invalid("there is no record in the request"));
    }
    let mut ends = store(&caller, (&topic, None), &records).await?;
    if let [Err(_)] = ends.as_slice() {
        ends.swap_remove(0)?;
    }
    let mut written = Vec::new();
    for ((end, request), record) in ends.into_iter().zip(&requests).zip(&records) {
        let line = match end {
            Ok(stored) => receipt((&cluster, &topic), &stored, request, record),
            Err(error) => failure(error),
        };
        written.extend_from_slice(line.to_string().as_bytes());
        written.push(b'\n');
    }
    Ok(Written::json(written, body.charge).into_response())
}

fn receipt(
    (cluster, topic): (&str, &str),
    stored: &RecordMetadata,
    request: &ProduceRequest<'_>,
    record: &NewRecord<'_>,
) -> serde_json::Value {
    let told = |data: &Option<ProduceData<'_>>, bytes: &Option<Data<'_>>| {
        let size = bytes.as_ref().map_or(0, |Data(bytes)| bytes.len());
        data.as_ref().map(|data| json!({"type": data.kind(), "size": size}))
    };
    json!({
        "error_code": 200,
        "cluster_id": cluster,
        "topic_name": topic,
        "partition_id": stored.partition.get(),
        "offset": stored.offset.map(headwater_client::Offset::get),
        "key": told(&request.key, &record.key),
        "value": told(&request.value, &record.value),
    })
}

fn failure(error: Error) -> serde_json::Value {
    let problem = Problem::from(error);
    json!({"error_code": problem.http_status().as_u16(), "message": format!("{}: {}", problem.code(), problem.detail())})
}

/// Lists clusters, in the form of Confluent's REST v3.
#[utoipa::path(get, path = "/kafka/v3/clusters", tag = "kafka", operation_id = "kafka_clusters",
    responses((status = 200, description = "The only one", body = KafkaList)))]
pub(crate) async fn clusters(State(service): State<Service>, _caller: Caller) -> axum::Json<KafkaList> {
    let id = &service.settings.cluster_id;
    let cluster = json!({
        "kind": "KafkaCluster",
        "metadata": {"self": format!("/kafka/v3/clusters/{id}")},
        "cluster_id": id,
        "topics": {"related": format!("/kafka/v3/clusters/{id}/topics")},
    });
    axum::Json(KafkaList::new(
        "KafkaClusterList",
        "/kafka/v3/clusters".to_owned(),
        vec![cluster],
    ))
}

/// Lists topics, in the form of Confluent's REST v3.
#[utoipa::path(get, path = "/kafka/v3/clusters/{cluster}/topics", tag = "kafka", operation_id = "kafka_topics",
    params(("cluster" = String, Path, description = "The id of the cluster")),
    responses((status = 200, description = "The topics", body = KafkaList)))]
pub(crate) async fn topics(
    State(service): State<Service>,
    caller: Caller,
    Path(cluster): Path<String>,
) -> Result<axum::Json<KafkaList>, Problem> {
    must_be_own(&service, &cluster)?;
    let path = format!("/kafka/v3/clusters/{}/topics", encoded(&cluster));
    let topics = caller.client().admin().topics().await?.into_iter().map(|topic| {
        let own = format!("{path}/{}", topic.name);
        json!({
            "kind": "KafkaTopic",
            "metadata": {"self": own},
            "cluster_id": cluster,
            "topic_name": topic.name.as_str(),
            "is_internal": topic.name.as_str().starts_with("__"),
            "partitions_count": topic.partitions,
        })
    });
    let topics = topics.collect();
    Ok(axum::Json(KafkaList::new("KafkaTopicList", path.clone(), topics)))
}
