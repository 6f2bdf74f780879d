//! Whether a peer that hangs up on this client's protocol speaks Kafka's: those who come from there may well have named such a port.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::address::Address;
use crate::runtime::timeout;
use crate::runtime::transport::{Connector, Halves};

/// Size; `ApiVersions` in version 0; a correlation id; no client id. Every Kafka broker answers it.
const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, b'h', b'w', b'a', b'q', 0xff, 0xff];

/// Asks as a Kafka client does, on a connection of its own.
pub(crate) async fn speaks_kafka(connector: &dyn Connector, address: &Address, limit: Duration) -> bool {
    let asked = async {
        let Halves { mut read, mut write } = connector.connect(address).await?;
        write.write_all(&REQUEST).await?;
        write.flush().await?;
        let mut answer = [0; 8];
        read.read_exact(&mut answer).await?;
        // Size and correlation id.
        std::io::Result::Ok(answer[0] == 0 && answer[4..] == REQUEST[8..12])
    };
    matches!(timeout(limit, asked).await, Some(Ok(true)))
}
