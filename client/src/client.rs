//! The client: configuration and the way to producers, consumers and administration.
//!
//! A client owns nothing but a share of the cluster state; connections are made when they are first needed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::admin::Admin;
use crate::cluster::{Cluster, Settings};
use crate::connection::ConnectionSettings;
use crate::connection::credentials::{Credentials, SaslMechanism};
use crate::consumer::{ConsumerBuilder, GroupConsumerBuilder};
use crate::deadline::{BackoffLimits, LONGEST};
use crate::error::Error;
use crate::producer::ProducerBuilder;
#[cfg(test)]
use crate::runtime::transport::Connector;
use crate::runtime::transport::{Encrypted, Tcp};
use crate::settings::{self, Defaults};
use crate::statistics::ClientStatistics;
use crate::tls::TlsSettings;

/// A connection to a Headwater cluster. Cheap to clone; all clones share connections and metadata.
///
/// ```no_run
/// # async fn example() -> Result<(), headwater_client::Error> {
/// use headwater_client::Client;
///
/// let client = Client::connect("localhost").await?;
/// for topic in client.admin().topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
}

impl Client {
    /// Connects with the defaults of [`ClientBuilder`]. `bootstrap` lists one or more `host:port`, separated by commas; without a
    /// port it is [`DEFAULT_PORT`](crate::DEFAULT_PORT).
    ///
    /// # Errors
    /// As [`ClientBuilder::build`]; within about a second where nobody listens.
    pub async fn connect(bootstrap: &str) -> Result<Self, Error> {
        Self::builder().bootstrap([bootstrap]).build().await
    }

    /// Starts the configuration of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Creation, deletion and description of topics.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.cluster))
    }

    /// Starts the configuration of a producer.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(&self.cluster))
    }

    /// Starts the configuration of a consumer.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.cluster))
    }

    /// What has passed between this client, with all its clones, producers and consumers, and each address of the brokers.
    ///
    /// ```no_run
    /// # fn example(client: headwater_client::Client) {
    /// for at in client.statistics().addresses {
    ///     println!("{}: {} requests, {:?} in the middle, lost {} times", at.address, at.requests, at.round_trip.p50, at.losses);
    /// }
    /// # }
    /// ```
    pub fn statistics(&self) -> ClientStatistics {
        ClientStatistics {
            addresses: self.cluster.statistics(),
        }
    }

    /// The group that the settings name (`group.id`), for [`Client::group_consumer`].
    pub fn group_id(&self) -> Option<&str> {
        self.cluster.settings.defaults.group_id.as_deref()
    }

    /// Starts the configuration of a consumer that shares its topics with the other members of a group.
    pub fn group_consumer(&self, group_id: impl Into<String>) -> GroupConsumerBuilder {
        GroupConsumerBuilder::new(Arc::clone(&self.cluster), group_id.into())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("bootstrap", &self.cluster.settings.bootstrap)
            .finish_non_exhaustive()
    }
}

/// Configures a [`Client`].
///
/// ```no_run
/// # async fn example() -> Result<(), headwater_client::Error> {
/// use std::time::Duration;
/// use headwater_client::Client;
///
/// let client = Client::builder()
///     .bootstrap(["broker-1:9292", "broker-2:9292"])
///     .request_timeout(Duration::from_secs(10))
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct ClientBuilder {
    pub(crate) bootstrap: Vec<String>,
    pub(crate) settings: Settings,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        let connection = ConnectionSettings {
            client_id: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            frame_size_max: 64 << 20,
            credentials: None,
        };
        let backoff = BackoffLimits {
            min: Duration::from_millis(20),
            max: Duration::from_secs(1),
            seed: None,
        };
        let settings = Settings {
            bootstrap: Vec::new(),
            connection,
            bootstrap_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_mins(1),
            metadata_timeout: Duration::from_secs(5),
            metadata_age_max: Duration::from_secs(30),
            backoff,
            connector: Arc::new(Tcp),
            tls: TlsSettings::default(),
            defaults: Defaults::default(),
        };
        Self {
            bootstrap: Vec::new(),
            settings,
        }
    }
}

impl ClientBuilder {
    /// Where to find the cluster: `host:port` each, or several of them separated by commas. One that answers is enough. Without
    /// a port it is [`DEFAULT_PORT`](crate::DEFAULT_PORT).
    pub fn bootstrap<S: Into<String>>(mut self, addresses: impl IntoIterator<Item = S>) -> Self {
        self.bootstrap.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// What the program calls itself, up to 128 bytes: for the broker's log, and for the description of groups. Default the name of
    /// this crate.
    pub fn client_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.settings.connection.client_id = Some(id.into());
        self
    }

    /// Who the client is, and its password, where brokers ask for that (`security.sasl`). Nobody, by default.
    pub fn user(mut self, name: impl Into<Arc<str>>, password: impl Into<Arc<str>>) -> Self {
        let credentials = self.settings.connection.credentials.get_or_insert_default();
        (credentials.user, credentials.password) = (name.into(), password.into());
        self
    }

    /// How the client proves that it knows the password. Default [`SaslMechanism::ScramSha256`].
    pub fn sasl_mechanism(mut self, mechanism: SaslMechanism) -> Self {
        let credentials = self.settings.connection.credentials.get_or_insert_default();
        credentials.mechanism = mechanism;
        self
    }

    /// Shows who the client is by a token instead of a password: [`SaslMechanism::OauthBearer`]. It is asked for whenever a connection is made, and
    /// again before the last one ends; it may take a moment, as when it reads a file, but should not wait for a network.
    ///
    /// ```
    /// # let builder = headwater_client::Client::builder();
    /// let builder = builder.token(|| std::fs::read_to_string("/run/secrets/token"));
    /// ```
    pub fn token(mut self, give: impl Fn() -> std::io::Result<String> + Send + Sync + 'static) -> Self {
        let credentials = self.settings.connection.credentials.get_or_insert_default();
        credentials.tokens = Some(Arc::new(give));
        credentials.mechanism = SaslMechanism::OauthBearer;
        self
    }

    /// Shows who the client is by the token in a file, which is read whenever one is needed: as [`token`](Self::token).
    pub fn token_file(self, path: impl Into<std::path::PathBuf>) -> Self {
        let give = Credentials::of_token_file(path.into());
        self.token(move || give())
    }

    /// Sets what a file or a command line names: one of [these settings](crate::settings_reference), by its own name or by
    /// Kafka's. Those of producers and consumers are what theirs begin with.
    ///
    /// ```
    /// # fn main() -> Result<(), headwater_client::Error> {
    /// let builder = headwater_client::Client::builder()
    ///     .set("bootstrap.servers", "broker-1:9292,broker-2:9292")?
    ///     .set("linger.ms", "5")?
    ///     .set("batch_bytes", "512KiB")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownSetting`], [`Error::ForeignSetting`]; [`Error::Config`] for a value that cannot be read.
    pub fn set(mut self, name: &str, value: &str) -> Result<Self, Error> {
        settings::set(&mut self, name, value)?;
        Ok(self)
    }

    /// As [`ClientBuilder::set`], for all of a map.
    ///
    /// # Errors
    /// The first that `set` meets.
    pub fn set_all<N: AsRef<str>, V: AsRef<str>>(
        self,
        settings: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, Error> {
        let set = |builder: Self, (name, value): (N, V)| builder.set(name.as_ref(), value.as_ref());
        settings.into_iter().try_fold(self, set)
    }

    /// As [`ClientBuilder::set`], for every variable of the environment whose name begins with `prefix`: with `HEADWATER_CLIENT_`,
    /// `HEADWATER_CLIENT_LINGER_MS` is `linger.ms`.
    ///
    /// # Errors
    /// The first that `set` meets; [`Error::Config`] for a value that is not UTF-8.
    pub fn set_from_env(mut self, prefix: &str) -> Result<Self, Error> {
        settings::set_from(&mut self, prefix, std::env::vars_os())?;
        Ok(self)
    }

    /// Time limit for resolving a name, connecting, and the first exchange. Default 5 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.settings.connection.connect_timeout = limit;
        self
    }

    /// How long [`ClientBuilder::build`] tries again when no address answers, as while a broker starts. Each is tried once at
    /// least, for as long as `connect_timeout` allows. Default 1 s; it may be zero.
    pub fn bootstrap_timeout(mut self, limit: Duration) -> Self {
        self.settings.bootstrap_timeout = limit;
        self
    }

    /// How long to wait for any one response before the connection counts as dead. Default 30 s.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.settings.connection.request_timeout = limit;
        self
    }

    /// How long a call of [`Admin`], a seek, or the making of a producer or consumer may take, with all its
    /// attempts. Default 60 s.
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.settings.call_timeout = limit;
        self
    }

    /// How long to look for a topic that no broker knows before [`Error::UnknownTopic`]. Default 5 s.
    pub fn metadata_timeout(mut self, limit: Duration) -> Self {
        self.settings.metadata_timeout = limit;
        self
    }

    /// How old the knowledge of topics may become before it is refreshed without need: after so long at the latest, producers and
    /// consumers know of partitions that were added. Default 30 s.
    pub fn metadata_age_max(mut self, age: Duration) -> Self {
        self.settings.metadata_age_max = age;
        self
    }

    /// The shortest and the longest pause between attempts; each is a quarter longer than the one before. Default 20 ms and 1 s.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.settings.backoff.min, self.settings.backoff.max) = (min, max);
        self
    }

    /// The largest response to take, in bytes; a broker that sends a larger one breaks the protocol. Default 64 MiB.
    pub fn frame_size_max(mut self, bytes: u32) -> Self {
        self.settings.connection.frame_size_max = bytes;
        self
    }

    /// Encrypts every connection, and believes no broker that does not show a certificate for its host. Default off, but on where one of
    /// the settings below is made. Without [`tls_ca`](ClientBuilder::tls_ca) the CAs of the system are trusted.
    pub fn tls(mut self, is_on: bool) -> Self {
        self.settings.tls.is_on = Some(is_on);
        self
    }

    /// PEM file of the CAs that are trusted, instead of those of the system.
    pub fn tls_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.tls.ca = Some(file.into());
        self
    }

    /// PEM files of the certificate that this client shows, with those that lead to its CA behind it, and of its private key.
    pub fn tls_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        (self.settings.tls.certificate, self.settings.tls.key) = (Some(certificate.into()), Some(key.into()));
        self
    }

    /// The name that the brokers' certificates must be for, where it is not the host that is connected to.
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.settings.tls.server_name = Some(name.into());
        self
    }

    /// Connects to a network of its own and makes the pauses between attempts the same in every run.
    #[cfg(test)]
    pub(crate) fn simulated(mut self, connector: Arc<dyn Connector>, seed: u64) -> Self {
        self.settings.connector = connector;
        self.settings.backoff.seed = Some(seed);
        self
    }

    /// Connects to the first broker of the list that answers.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range. [`Error::Connect`] if nobody listens at any of the addresses for as long as
    /// [`bootstrap_timeout`](ClientBuilder::bootstrap_timeout), [`Error::NotHeadwater`] if something else does.
    pub async fn build(mut self) -> Result<Client, Error> {
        for list in &self.bootstrap {
            self.settings.bootstrap.extend(Address::parse_list(list)?);
        }
        if self.settings.bootstrap.is_empty() {
            return Err(Error::config("bootstrap", "there is no address"));
        }
        check(&self.settings)?;
        if let Some(tls) = self.settings.tls.read()? {
            self.settings.connector = Arc::new(Encrypted(tls));
        }
        let cluster = Cluster::new(self.settings);
        cluster.greet().await?;
        Ok(Client { cluster })
    }
}

fn check(settings: &Settings) -> Result<(), Error> {
    for (setting, value) in [
        ("connect_timeout", settings.connection.connect_timeout),
        ("request_timeout", settings.connection.request_timeout),
        ("call_timeout", settings.call_timeout),
        ("metadata_timeout", settings.metadata_timeout),
        ("metadata_age_max", settings.metadata_age_max),
        ("backoff", settings.backoff.min),
    ] {
        if value.is_zero() {
            return Err(Error::config(setting, "must be longer than zero"));
        }
    }
    for (setting, value) in [
        ("connect_timeout", settings.connection.connect_timeout),
        ("request_timeout", settings.connection.request_timeout),
        ("bootstrap_timeout", settings.bootstrap_timeout),
        ("call_timeout", settings.call_timeout),
        ("metadata_timeout", settings.metadata_timeout),
        ("metadata_age_max", settings.metadata_age_max),
        ("backoff", settings.backoff.max),
    ] {
        if value > LONGEST {
            return Err(Error::config(setting, "must be at most 100 years"));
        }
    }
    if settings.backoff.max < settings.backoff.min {
        return Err(Error::config(
            "backoff",
            "the longest pause must not be shorter than the shortest",
        ));
    }
    let id = settings.connection.client_id.as_deref();
    if id.is_some_and(|id| !(1..=CLIENT_ID_LEN_MAX).contains(&id.len())) {
        let reason = format!("must be from 1 to {CLIENT_ID_LEN_MAX} bytes long");
        return Err(Error::config("client_id", reason));
    }
    if settings.connection.frame_size_max < FRAME_SIZE_MIN {
        return Err(Error::config(
            "frame_size_max",
            format!("must be at least {FRAME_SIZE_MIN} bytes"),
        ));
    }
    Ok(())
}

/// The broker remembers no more.
const CLIENT_ID_LEN_MAX: usize = 128;

/// Metadata and a small fetch fit into this.
const FRAME_SIZE_MIN: u32 = 1 << 20;

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}
