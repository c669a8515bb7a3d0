//! InitProducerId: an id for an idempotent producer. Transactions are refused.

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::broker::Broker;
use crate::dispatch::Call;

pub(crate) async fn handle(
    broker: &Broker,
    _: Call<'_>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let failed = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.code(),
        producer_epoch: -1,
        ..Default::default()
    };
    if let Some(id) = &request.transactional_id {
        tracing::info!(transactional_id = %id, "a producer asked for transactions, which are not supported");
        return failed(ErrorCode::InvalidRequest);
    }
    let mut ids = broker.inner().producer_ids.lock().await;
    match ids.next(broker.cluster()).await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            ..Default::default()
        },
        Err(error) => {
            tracing::warn!(%error, "no producer id");
            // Producers ask again.
            failed(ErrorCode::CoordinatorNotAvailable)
        }
    }
}
