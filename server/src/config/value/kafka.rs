//! Where clients of Kafka's protocol are listened to.

use std::net::SocketAddr;

use super::Value;

/// The port of Kafka's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaListen {
    /// Kafka's usual port at the address of `broker.listen`, if that has its own usual one; none otherwise.
    #[default]
    Auto,
    /// There is none.
    Off,
    /// Here.
    At(SocketAddr),
}

impl Value for KafkaListen {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "auto" => Self::Auto,
            "off" | "" => Self::Off,
            _ => {
                let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
                let read = address.read(text);
                read.map_err(|expected| format!("\"auto\", \"off\", or {expected}"))?;
                Self::At(address)
            }
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Off => "off".to_owned(),
            Self::At(address) => address.show(),
        }
    }
}
