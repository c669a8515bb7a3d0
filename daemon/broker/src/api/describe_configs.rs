//! DescribeConfigs: configurations of topics and of this daemon, with where each value comes from.

use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use tradewind_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use crate::broker::Broker;
use crate::configs::{self, Described, Source};
use crate::dispatch::Call;
use crate::topics;

/// Kafka's number for topics as a kind of resource.
pub(super) const TOPIC: i8 = 2;
/// Kafka's number for brokers.
pub(super) const BROKER: i8 = 4;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let describe = |resource: &DescribeConfigsResource| {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match of(broker, resource) {
            Ok(described) => {
                let wanted = |described: &Described| match &resource.configuration_keys {
                    Some(keys) if !keys.is_empty() => keys.iter().any(|key| *key == *described.name),
                    _ => true,
                };
                let respond =
                    |described| respond(described, request.include_synonyms, request.include_documentation);
                result.configs = described.into_iter().filter(wanted).map(respond).collect();
            }
            Err((error, message)) => {
                result.error_code = error.code();
                result.error_message = Some(message.into());
            }
        }
        result
    };
    DescribeConfigsResponse {
        results: request.resources.iter().map(describe).collect(),
        ..Default::default()
    }
}

fn of(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<Described>, (ErrorCode, String)> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC if !topics::is_valid_name(name) => Err((
            ErrorCode::InvalidTopicException,
            format!("Topic name '{name}' is not valid."),
        )),
        TOPIC => match broker.cluster().image().topic(name) {
            Some(topic) => Ok(configs::of_topic(broker.cluster(), Some(topic))),
            None => Err((
                ErrorCode::UnknownTopicOrPartition,
                format!("Topic '{name}' does not exist."),
            )),
        },
        BROKER if name.is_empty() => {
            let all = configs::of_broker(broker.cluster(), broker.config());
            Ok(all
                .into_iter()
                .filter(|described| described.source == Source::DynamicDefaultBroker)
                .collect())
        }
        BROKER if name == broker.cluster().node_id().to_string() => {
            Ok(configs::of_broker(broker.cluster(), broker.config()))
        }
        BROKER => {
            let own = broker.cluster().node_id();
            Err((
                ErrorCode::InvalidRequest,
                format!("Unexpected broker id, expected {own} or empty, but got {name}"),
            ))
        }
        other => Err((
            ErrorCode::InvalidRequest,
            format!("Resource type {other} is not known here."),
        )),
    }
}

fn respond(described: Described, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = |synonym: &configs::Synonym| DescribeConfigsSynonym {
        name: synonym.name.into(),
        value: Some(Str::from(synonym.value.as_str())),
        source: synonym.source as i8,
    };
    DescribeConfigsResourceResult {
        name: described.name.into(),
        read_only: described.read_only,
        config_source: described.source as i8,
        is_sensitive: false,
        synonyms: if synonyms {
            described.synonyms.iter().map(synonym).collect()
        } else {
            Vec::new()
        },
        config_type: described.kind as i8,
        documentation: documentation.then(|| described.documentation.into()),
        value: Some(described.value.into()),
    }
}
