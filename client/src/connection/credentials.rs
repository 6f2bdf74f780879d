//! Who a client is, and how it proves that on a new connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use headwater_protocol::head;
use headwater_protocol::schema;
use headwater_protocol::scram::{ClientExchange, Mechanism, ScramError};

use crate::error::Error;
use crate::requests::ResponseError;
use crate::runtime;

/// How a client proves that it knows its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaslMechanism {
    /// Without saying it, by SHA-256; the broker proves that it knows it too.
    ScramSha256,
    /// The same by SHA-512.
    ScramSha512,
    /// By saying it. Brokers take that only where the connection is encrypted, unless they are told otherwise.
    Plain,
    /// By a token that somebody else has made for it, whom the broker trusts. Only where the connection is encrypted nobody else can use it.
    OauthBearer,
}

impl SaslMechanism {
    /// All of them.
    pub const ALL: [SaslMechanism; 4] = [Self::ScramSha256, Self::ScramSha512, Self::Plain, Self::OauthBearer];

    /// Its name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => Mechanism::Sha256.name(),
            Self::ScramSha512 => Mechanism::Sha512.name(),
            Self::Plain => "PLAIN",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// What gives tokens.
pub(crate) type Tokens = Arc<dyn Fn() -> io::Result<String> + Send + Sync>;

/// A user and its password, or what gives its tokens.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) user: Arc<str>,
    pub(crate) password: Arc<str>,
    pub(crate) mechanism: SaslMechanism,
    pub(crate) tokens: Option<Tokens>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            user: Arc::from(""),
            password: Arc::from(""),
            mechanism: SaslMechanism::ScramSha256,
            tokens: None,
        }
    }
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_empty() {
            "no password"
        } else {
            "a password"
        };
        write!(f, "Credentials({}, {password}, {})", self.user, self.mechanism.name())
    }
}

/// What a broker says to a message of the exchange.
pub(super) struct Answer {
    challenge: Vec<u8>,
    is_done: bool,
    /// So long the client is in, if that has an end.
    pub(super) lifetime: Option<Duration>,
}

/// Reads it; a refusal is final.
pub(super) fn read(bytes: &[u8]) -> Result<Answer, ResponseError> {
    let response = head::decode_response::<schema::AuthenticateResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    Ok(Answer {
        challenge: response
            .challenge()
            .map(|bytes| bytes.bytes().to_vec())
            .unwrap_or_default(),
        is_done: response.is_done(),
        lifetime: Some(response.lifetime_ms())
            .filter(|lifetime| *lifetime > 0)
            .map(Duration::from_millis),
    })
}

/// A message of the exchange; the first one names the mechanism.
pub(super) fn request(mechanism: Option<SaslMechanism>, message: Vec<u8>) -> schema::AuthenticateRequestT {
    schema::AuthenticateRequestT {
        mechanism: mechanism.map(|mechanism| mechanism.name().to_owned()),
        message: Some(message),
    }
}

/// How far a client has come with proving who it is.
pub(super) enum Proof {
    /// All is said.
    Said,
    /// The broker is to say how the password is salted.
    Begun(ClientExchange),
    /// The broker is to prove that it knows it too.
    Answered(ClientExchange),
}

impl Credentials {
    /// With the tokens of a file, which is read whenever one is needed.
    pub(crate) fn of_token_file(path: PathBuf) -> Tokens {
        Arc::new(move || {
            let text = std::fs::read_to_string(&path);
            text.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        })
    }

    /// Begins, and says what is to be sent.
    pub(super) fn begin(&self) -> Result<(Proof, Vec<u8>), Error> {
        let mechanism = match self.mechanism {
            SaslMechanism::Plain => {
                let message = format!("\0{}\0{}", self.user, self.password);
                return Ok((Proof::Said, message.into_bytes()));
            }
            SaslMechanism::OauthBearer => {
                let none = || {
                    Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        "nothing gives tokens: set token_file",
                    ))
                };
                let token = self.tokens.as_ref().map_or_else(none, |give| give());
                let token = token.map_err(|source| Error::Token {
                    source: Arc::new(source),
                })?;
                let message = format!("n,,\x01auth=Bearer {}\x01\x01", token.trim());
                return Ok((Proof::Said, message.into_bytes()));
            }
            SaslMechanism::ScramSha256 => Mechanism::Sha256,
            SaslMechanism::ScramSha512 => Mechanism::Sha512,
        };
        let nonce = format!("{:016x}{:016x}", runtime::random(), runtime::random());
        let (exchange, first) = ClientExchange::begin(mechanism, &self.user, &self.password, &nonce);
        Ok((Proof::Begun(exchange), first.into_bytes()))
    }
}

impl Proof {
    /// What is to be sent next; none if the client is in.
    pub(super) fn next(self, answer: &Answer) -> Result<Option<(Proof, Vec<u8>)>, ScramError> {
        match self {
            Proof::Said => Ok(None),
            // A broker that asks nobody who it is.
            Proof::Begun(_) if answer.is_done => Ok(None),
            Proof::Begun(mut exchange) => {
                let last = exchange.answer(&answer.challenge)?;
                Ok(Some((Proof::Answered(exchange), last.into_bytes())))
            }
            Proof::Answered(exchange) => exchange.check(&answer.challenge).map(|()| None),
        }
    }
}
