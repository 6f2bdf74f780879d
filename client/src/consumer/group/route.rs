//! The way to the core that runs a group. Shared by all that asks the group something; knows one address and no requests.

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::head::Head;

use crate::address::Address;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::requests::{self, ResponseError};
use crate::runtime::sync::Mutex;

/// Asks the core that runs a group, which is looked for again whenever that fails.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) cluster: Arc<Cluster>,
    pub(super) group_id: Arc<str>,
    address: Arc<Mutex<Option<Address>>>,
}

impl Route {
    pub(super) fn new(cluster: Arc<Cluster>, group_id: &str) -> Self {
        Self {
            cluster,
            group_id: Arc::from(group_id),
            address: Arc::default(),
        }
    }

    /// One attempt; the broker may take `hold` to answer.
    pub(super) async fn ask<H: Head, T>(
        &self,
        request: &H,
        hold: Duration,
        read: impl FnOnce(&[u8]) -> Result<T, ResponseError>,
    ) -> Result<T, Error> {
        let result = async {
            let address = self.find().await?;
            let connection = self.cluster.connect(&address).await?;
            let frame = connection.call_within(request, hold).await?;
            connection.read(&frame, read)
        };
        let result = result.await;
        // Whoever answers with any other code is the right one to ask.
        let has_moved = match &result {
            Err(Error::Broker { code, .. }) => {
                matches!(
                    code,
                    ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable | ErrorCode::UnknownServerError
                )
            }
            Err(_) => true,
            Ok(_) => false,
        };
        if has_moved {
            *self.address.lock() = None;
        }
        result
    }

    async fn find(&self) -> Result<Address, Error> {
        let known = self.address.lock().clone();
        if let Some(address) = known {
            return Ok(address);
        }
        let any = self.cluster.any().await?;
        let frame = any.call(&requests::find_group(&self.group_id)).await?;
        let address = any.read(&frame, requests::read_find_group)?;
        *self.address.lock() = Some(address.clone());
        Ok(address)
    }
}
