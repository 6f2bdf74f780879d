//! How a command encrypts its connection: the options, and the same from the environment for what has no command line.

use std::env::var_os;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use headwater_client::ClientBuilder;

/// Options of every command. Each can be set in the environment, so that it is said once.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_field_names, reason = "they are the names of the options")]
pub struct Tls {
    /// Encrypt the connection, and trust the CAs of this system; the options below mean it already
    #[arg(long, global = true, env = "HEADWATER_TLS", hide_env_values = true)]
    pub tls: bool,
    /// Trust the CAs in this PEM file instead of those of the system
    #[arg(long, global = true, env = "HEADWATER_TLS_CA", value_name = "FILE", value_hint = ValueHint::FilePath, hide_env_values = true)]
    pub tls_ca: Option<PathBuf>,
    /// Show the certificate in this PEM file
    #[arg(long, global = true, env = "HEADWATER_TLS_CERTIFICATE", value_name = "FILE", value_hint = ValueHint::FilePath, hide_env_values = true, requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// With the private key in this PEM file
    #[arg(long, global = true, env = "HEADWATER_TLS_KEY", value_name = "FILE", value_hint = ValueHint::FilePath, hide_env_values = true, requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// The name that the broker's certificate must be for, where it is not the host of --server
    #[arg(
        long,
        global = true,
        env = "HEADWATER_TLS_SERVER_NAME",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub tls_server_name: Option<String>,
}

impl Tls {
    /// What the environment says.
    pub fn of_environment() -> Self {
        let file = |name| var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            tls: var_os("HEADWATER_TLS").is_some_and(|value| value == "true"),
            tls_ca: file("HEADWATER_TLS_CA"),
            tls_certificate: file("HEADWATER_TLS_CERTIFICATE"),
            tls_key: file("HEADWATER_TLS_KEY"),
            tls_server_name: std::env::var("HEADWATER_TLS_SERVER_NAME").ok(),
        }
    }

    /// Tells a client of it.
    pub fn tell(&self, mut client: ClientBuilder) -> ClientBuilder {
        if self.tls {
            client = client.tls(true);
        }
        if let Some(file) = &self.tls_ca {
            client = client.tls_ca(file);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            client = client.tls_certificate(certificate, key);
        }
        if let Some(name) = &self.tls_server_name {
            client = client.tls_server_name(name);
        }
        client
    }
}
