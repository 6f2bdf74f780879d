//! Quotas, of which there are none: Kafka's tools ask for them when they describe users.

use headwater_kafka::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::super::asking::Asking;
use crate::model::access::Operation;

pub(in crate::session::kafka) async fn describe(
    asking: &Asking,
    _: DescribeClientQuotasRequest<'_>,
) -> DescribeClientQuotasResponse<'static> {
    match asking.need_cluster(Operation::DescribeConfigs) {
        Ok(()) => DescribeClientQuotasResponse {
            error_message: Some("".into()),
            entries: Some(Vec::new()),
            ..DescribeClientQuotasResponse::default()
        },
        Err(refusal) => DescribeClientQuotasResponse {
            error_code: asking.tells(refusal.code),
            error_message: Some(refusal.message.into()),
            entries: None,
            ..DescribeClientQuotasResponse::default()
        },
    }
}
