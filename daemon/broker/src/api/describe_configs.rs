//! DescribeConfigs: configurations of topics, groups and this daemon, with where each value comes from.

use tradewind_wire::codec::Str;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use tradewind_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use crate::broker::Broker;
use crate::configs::{self, Described, alter, resource};
use crate::dispatch::Call;
use crate::topics;

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
    let (cluster, name) = (broker.cluster(), resource.resource_name.as_str());
    match resource.resource_type {
        resource::TOPIC if !topics::is_valid_name(name) => Err((
            ErrorCode::InvalidTopicException,
            format!("Topic name '{name}' is not valid."),
        )),
        resource::TOPIC => match cluster.image().topic(name) {
            Some(topic) => Ok(configs::of(cluster, topic)),
            None => Err((
                ErrorCode::UnknownTopicOrPartition,
                format!("The topic '{name}' does not exist."),
            )),
        },
        resource::BROKER if name.is_empty() => Ok(configs::of_all_brokers(cluster)),
        resource::BROKER => {
            alter::broker_id(broker, name).map(|()| configs::of_broker(cluster, broker.config()))
        }
        resource::GROUP if name.is_empty() => Err((
            ErrorCode::InvalidRequest,
            "Group name cannot be empty.".to_owned(),
        )),
        resource::GROUP => Ok(configs::of_group(cluster, name)),
        other => Err((
            ErrorCode::InvalidRequest,
            format!("Unsupported resource type: {other}"),
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
