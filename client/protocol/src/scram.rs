//! SCRAM (RFC 5802, RFC 7677): what both sides say to prove that one knows a password and the other its keys, as bytes.
//!
//! ```text
//! client: ClientExchange::begin ─► client-first ─► server: ClientFirst::read, ServerExchange::begin
//!                                ◄─ server-first ◄─
//!         answer                 ─► client-final ─► finish: the proof is right, or [`ScramError::Proof`]
//!         check                  ◄─ server-final ◄─
//! ```
//! The server has [`Keys`], of which no password can be had but by trying. Messages are read strictly: what is not as the RFC has it is
//! refused, but for what Kafka's clients do. Passwords and names are taken as they are, in UTF-8: no client of Kafka prepares them.
//! No channel binding.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// The fewest iterations that are accepted, as in Kafka.
pub const ITERATIONS_MIN: u32 = 4096;

/// The most iterations that are accepted: some of Kafka's clients refuse more.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// No message of an exchange is longer, in bytes.
pub const MESSAGE_LEN_MAX: usize = 4096;

/// No name of a user is longer, in bytes.
pub const USER_LEN_MAX: usize = 256;

/// Bytes of a salt that is made here.
pub const SALT_LEN: usize = 16;

/// A salt is not longer, in bytes.
pub const SALT_LEN_MAX: usize = 256;

/// Without channel binding: the beginning of the first message, and what it is repeated as.
const NO_BINDING: &str = "n,,";

/// Which hash is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Mechanism {
    /// Both, the stronger one last.
    pub const ALL: [Mechanism; 2] = [Mechanism::Sha256, Mechanism::Sha512];

    /// Its name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::Sha256 => "SCRAM-SHA-256",
            Mechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Mechanism> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// Kafka's number of it.
    pub const fn number(self) -> i8 {
        match self {
            Mechanism::Sha256 => 1,
            Mechanism::Sha512 => 2,
        }
    }

    /// The one of Kafka's number.
    pub fn numbered(number: i8) -> Option<Mechanism> {
        Self::ALL.into_iter().find(|mechanism| mechanism.number() == number)
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Mechanism::Sha256 => hmac::HMAC_SHA256,
            Mechanism::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn hash(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Mechanism::Sha256 => &digest::SHA256,
            Mechanism::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    fn sign(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), data).as_ref().to_vec()
    }

    /// Bytes of a key.
    pub const fn key_len(self) -> usize {
        match self {
            Mechanism::Sha256 => 32,
            Mechanism::Sha512 => 64,
        }
    }
}

/// A password being salted, a number of iterations at a time, as all of them take long.
pub struct Salting {
    key: hmac::Key,
    last: Vec<u8>,
    salted: Vec<u8>,
    left: u32,
}

impl Salting {
    /// Begins: `Hi` of RFC 5802.
    pub fn new(mechanism: Mechanism, password: &str, salt: &[u8], iterations: u32) -> Salting {
        let key = hmac::Key::new(mechanism.hmac(), password.as_bytes());
        let mut first = salt.to_vec();
        first.extend_from_slice(&1_u32.to_be_bytes());
        let last = hmac::sign(&key, &first).as_ref().to_vec();
        Salting {
            key,
            salted: last.clone(),
            last,
            left: iterations.saturating_sub(1),
        }
    }

    /// Does so many iterations more, and says what came out once all are done.
    pub fn step(&mut self, iterations: u32) -> Option<&[u8]> {
        let now = iterations.min(self.left);
        for _ in 0..now {
            let next = hmac::sign(&self.key, &self.last);
            self.last.copy_from_slice(next.as_ref());
            for (all, one) in self.salted.iter_mut().zip(&self.last) {
                *all ^= one;
            }
        }
        self.left -= now;
        (self.left == 0).then_some(&*self.salted)
    }

    /// Does all that is left.
    pub fn finish(mut self) -> Vec<u8> {
        self.step(u32::MAX);
        self.salted
    }
}

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Of which mechanism.
    pub mechanism: Mechanism,
    /// How often the password was hashed.
    pub iterations: u32,
    /// What it was salted with.
    pub salt: Vec<u8>,
    /// `StoredKey`: tells that a proof is right.
    pub stored_key: Vec<u8>,
    /// `ServerKey`: proves that the server has it.
    pub server_key: Vec<u8>,
}

impl fmt::Debug for Keys {
    /// Nothing that is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, {} iterations)", self.mechanism.name(), self.iterations)
    }
}

impl Keys {
    /// Of a password.
    pub fn of_password(mechanism: Mechanism, password: &str, salt: Vec<u8>, iterations: u32) -> Keys {
        let salted = Salting::new(mechanism, password, &salt, iterations).finish();
        Keys::of_salted(mechanism, &salted, salt, iterations)
    }

    /// Of a password that was salted already.
    pub fn of_salted(mechanism: Mechanism, salted: &[u8], salt: Vec<u8>, iterations: u32) -> Keys {
        let client_key = mechanism.sign(salted, b"Client Key");
        Keys {
            mechanism,
            iterations,
            salt,
            stored_key: mechanism.hash(&client_key),
            server_key: mechanism.sign(salted, b"Server Key"),
        }
    }

    /// Of nobody: what is told of them is the same each time for the same name and secret, so that nobody learns which names there are.
    /// No password fits.
    pub fn of_nobody(mechanism: Mechanism, user: &str, secret: &[u8], iterations: u32) -> Keys {
        let mut salt = Mechanism::Sha256.sign(secret, user.as_bytes());
        salt.truncate(SALT_LEN);
        Keys {
            mechanism,
            iterations,
            salt,
            // A hash never has this length.
            stored_key: Vec::new(),
            server_key: mechanism.sign(secret, user.as_bytes()),
        }
    }

    /// Whether this is the password, once it was salted.
    pub fn are_of(&self, salted: &[u8]) -> bool {
        let client_key = self.mechanism.sign(salted, b"Client Key");
        constant_time::verify_slices_are_equal(&self.mechanism.hash(&client_key), &self.stored_key).is_ok()
    }
}

/// Why an exchange has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message is not what it should be.
    #[error("a message of the other side cannot be read: {0}")]
    Malformed(&'static str),
    /// The password is wrong, or there is no such user.
    #[error("the password is not that of the user")]
    Proof,
    /// The other side does not know the password either.
    #[error("the server could not prove that it knows the password: it is not the one that it says it is")]
    Server,
    /// The other side says that it refuses.
    #[error("the server refuses the user or the password")]
    Refused,
    /// It asks for too little work, or for too much.
    #[error("the server asks for {0} iterations; at least {ITERATIONS_MIN} and at most {ITERATIONS_MAX} are done")]
    Iterations(u32),
}

use ScramError::Malformed;

/// The client's first message, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// Who wants to come in.
    pub user: String,
    /// Channel binding and on whose behalf, as it was written.
    header: String,
    /// All that follows, as it was written.
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads it.
    pub fn read(message: &[u8]) -> Result<ClientFirst, ScramError> {
        let text = text(message)?;
        let mut parts = text.splitn(3, ',');
        let binding = parts.next().unwrap_or_default();
        let behalf = parts.next().ok_or(Malformed("the first message has no header"))?;
        let bare = parts.next().ok_or(Malformed("the first message has no header"))?;
        match binding {
            "n" | "y" => {}
            _ => return Err(Malformed("channel binding is not offered")),
        }
        let mut fields = bare.split(',');
        let name = field(fields.next(), "n=").ok_or(Malformed("the first message names no user"))?;
        let user = unescaped(name);
        if user.is_empty() || user.len() > USER_LEN_MAX || user.contains('\0') {
            return Err(Malformed("the name of the user is empty, too long, or has a zero byte"));
        }
        let is_own = match behalf.strip_prefix("a=") {
            Some(other) => unescaped(other) == user,
            None => behalf.is_empty(),
        };
        if !is_own {
            return Err(Malformed("nobody can come in on behalf of somebody else"));
        }
        let nonce = field(fields.next(), "r=").ok_or(Malformed("the first message has no nonce"))?;
        check_nonce(nonce)?;
        for extension in fields {
            let (name, value) = extension
                .split_once('=')
                .ok_or(Malformed("an extension has no value"))?;
            if name == "m" {
                return Err(Malformed("an extension is asked for that is not known"));
            }
            if name == "tokenauth" && value.eq_ignore_ascii_case("true") {
                return Err(Malformed("there are no delegation tokens"));
            }
        }
        let header_len = text.len() - bare.len();
        Ok(ClientFirst {
            user,
            header: text[..header_len].to_owned(),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }
}

/// The server's side, after the client's first message.
#[derive(Debug)]
pub struct ServerExchange {
    keys: Keys,
    header: String,
    /// The client's, and both together.
    client_nonce: String,
    nonce: String,
    /// The bare first message of the client, and the server's.
    so_far: String,
}

impl ServerExchange {
    /// Begins, and says what is to be answered. `nonce`: random, in printable ASCII without commas.
    pub fn begin(first: &ClientFirst, keys: Keys, nonce: &str) -> (ServerExchange, String) {
        let nonce = format!("{}{nonce}", first.nonce);
        let answer = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
        let exchange = ServerExchange {
            keys,
            header: first.header.clone(),
            client_nonce: first.nonce.clone(),
            nonce,
            so_far: format!("{},{answer}", first.bare),
        };
        (exchange, answer)
    }

    /// Judges the client's last message: only `Ok` says that it knows the password; it is what is to be answered.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let text = text(message)?;
        let (before, proof) = text
            .rsplit_once(",p=")
            .ok_or(Malformed("the last message has no proof"))?;
        let mut fields = before.split(',');
        let binding = field(fields.next(), "c=").ok_or(Malformed("the last message has no channel binding"))?;
        let nonce = field(fields.next(), "r=").ok_or(Malformed("the last message has no nonce"))?;
        if fields.next().is_some() {
            return Err(Malformed("the last message has more fields than are known"));
        }
        // librdkafka before 2.2 says its own nonce twice, and Kafka lets it.
        let before_nonce = nonce.strip_suffix(&self.nonce);
        let is_nonce = before_nonce.is_some_and(|twice| twice.is_empty() || twice == self.client_nonce);
        if binding != BASE64.encode(&self.header) || !is_nonce {
            return Err(Malformed("the last message does not belong to the first"));
        }
        let proof = BASE64
            .decode(proof)
            .map_err(|_not_base64| Malformed("the proof is no base64"))?;
        let Keys {
            mechanism,
            stored_key,
            server_key,
            ..
        } = &self.keys;
        let said = format!("{},{before}", self.so_far);
        let signature = mechanism.sign(stored_key, said.as_bytes());
        if proof.len() != signature.len() {
            return Err(Malformed("the proof has another length than the hash"));
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(one, other)| one ^ other).collect();
        let is_right = constant_time::verify_slices_are_equal(&mechanism.hash(&client_key), stored_key);
        is_right.map_err(|_unequal| ScramError::Proof)?;
        let verifier = mechanism.sign(server_key, said.as_bytes());
        Ok(format!("v={}", BASE64.encode(verifier)))
    }
}

/// The client's side.
pub struct ClientExchange {
    mechanism: Mechanism,
    password: String,
    nonce: String,
    bare: String,
    /// What the server must prove to have, once the password was salted.
    verifier: Vec<u8>,
}

impl fmt::Debug for ClientExchange {
    /// Nothing that is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientExchange({})", self.mechanism.name())
    }
}

impl ClientExchange {
    /// Begins, and says what is to be sent. `nonce`: random, in printable ASCII without commas.
    pub fn begin(mechanism: Mechanism, user: &str, password: &str, nonce: &str) -> (ClientExchange, String) {
        let bare = format!("n={},r={nonce}", escaped(user));
        let first = format!("{NO_BINDING}{bare}");
        let exchange = ClientExchange {
            mechanism,
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            bare,
            verifier: Vec::new(),
        };
        (exchange, first)
    }

    /// Answers the server's first message. It takes as long as the server wants the password to be hashed.
    pub fn answer(&mut self, message: &[u8]) -> Result<String, ScramError> {
        let text = text(message)?;
        let mut fields = text.split(',');
        let nonce = field(fields.next(), "r=").ok_or(Malformed("there is no nonce"))?;
        let salt = field(fields.next(), "s=").ok_or(Malformed("there is no salt"))?;
        let iterations = field(fields.next(), "i=").ok_or(Malformed("there are no iterations"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Malformed("the nonce does not continue ours"));
        }
        check_nonce(nonce)?;
        let salt = BASE64
            .decode(salt)
            .map_err(|_not_base64| Malformed("the salt is no base64"))?;
        let iterations: u32 = iterations
            .parse()
            .map_err(|_no_number| Malformed("the iterations are no number"))?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(ScramError::Iterations(iterations));
        }
        let mechanism = self.mechanism;
        let salted = Salting::new(mechanism, &self.password, &salt, iterations).finish();
        let client_key = mechanism.sign(&salted, b"Client Key");
        let before = format!("c={},r={nonce}", BASE64.encode(NO_BINDING));
        let said = format!("{},{text},{before}", self.bare);
        let signature = mechanism.sign(&mechanism.hash(&client_key), said.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(one, other)| one ^ other)
            .collect();
        self.verifier = mechanism.sign(&mechanism.sign(&salted, b"Server Key"), said.as_bytes());
        Ok(format!("{before},p={}", BASE64.encode(proof)))
    }

    /// Judges the server's last message: whoever is not `Ok` does not know the password.
    pub fn check(&self, message: &[u8]) -> Result<(), ScramError> {
        let text = text(message)?;
        if text.starts_with("e=") {
            return Err(ScramError::Refused);
        }
        let verifier = field(text.split(',').next(), "v=").ok_or(Malformed("the server proves nothing"))?;
        let verifier = BASE64
            .decode(verifier)
            .map_err(|_not_base64| Malformed("the server's proof is no base64"))?;
        let is_right =
            !self.verifier.is_empty() && constant_time::verify_slices_are_equal(&verifier, &self.verifier).is_ok();
        if is_right { Ok(()) } else { Err(ScramError::Server) }
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_LEN_MAX {
        return Err(Malformed("a message is too long"));
    }
    std::str::from_utf8(message).map_err(|_not_utf8| Malformed("a message is no UTF-8"))
}

fn field<'a>(field: Option<&'a str>, name: &str) -> Option<&'a str> {
    field?.strip_prefix(name)
}

fn check_nonce(nonce: &str) -> Result<(), ScramError> {
    let is_printable = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b',';
    if nonce.is_empty() || !nonce.bytes().all(is_printable) {
        return Err(Malformed("a nonce is empty, or has characters that it may not have"));
    }
    Ok(())
}

fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// Some clients write `=` as it is; what follows tells.
fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        plain.push_str(before);
        (plain, rest) = match after.get(..2) {
            Some("2C") => (plain + ",", &after[2..]),
            Some("3D") => (plain + "=", &after[2..]),
            _ => (plain + "=", after),
        };
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "pencil";

    /// The example of RFC 7677, section 3.
    #[test]
    fn both_sides_say_what_the_rfc_has_them_say() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let (mut client, first) = ClientExchange::begin(Mechanism::Sha256, "user", PASSWORD, nonce);
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::of_password(Mechanism::Sha256, PASSWORD, salt, 4096);
        let first = ClientFirst::read(first.as_bytes()).unwrap();
        let (server, challenge) = ServerExchange::begin(&first, keys, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = client.answer(challenge.as_bytes()).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let verifier = server.finish(last.as_bytes()).unwrap();
        assert_eq!(verifier, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(client.check(verifier.as_bytes()), Ok(()));
        let other = verifier.replace('6', "7");
        assert_eq!(client.check(other.as_bytes()), Err(ScramError::Server));
        assert_eq!(client.check(b"e=invalid-proof"), Err(ScramError::Refused));
    }

    fn exchange(keys: Keys, user: &str, password: &str) -> Result<(), ScramError> {
        let (mut client, first) = ClientExchange::begin(keys.mechanism, user, password, "abc");
        let first = ClientFirst::read(first.as_bytes())?;
        assert_eq!(first.user, user);
        let (server, challenge) = ServerExchange::begin(&first, keys, "def");
        let verifier = server.finish(client.answer(challenge.as_bytes())?.as_bytes())?;
        client.check(verifier.as_bytes())
    }

    #[test]
    fn only_the_password_comes_in_whatever_the_name() {
        for mechanism in Mechanism::ALL {
            let keys = || Keys::of_password(mechanism, PASSWORD, vec![1; SALT_LEN], ITERATIONS_MIN);
            for user in ["alice", "a,b=c", "=2C", "ålice"] {
                assert_eq!(exchange(keys(), user, PASSWORD), Ok(()));
                assert_eq!(exchange(keys(), user, "pencils"), Err(ScramError::Proof));
                let nobody = Keys::of_nobody(mechanism, user, b"secret", ITERATIONS_MIN);
                for password in ["", PASSWORD] {
                    assert_eq!(exchange(nobody.clone(), user, password), Err(ScramError::Proof));
                }
            }
            let salted = Salting::new(mechanism, PASSWORD, &[1; SALT_LEN], ITERATIONS_MIN).finish();
            assert!(keys().are_of(&salted) && !keys().are_of(&salted[1..]));
            assert!(!format!("{:?}", keys()).contains("stored"));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for message in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=",
            "n,,n=,r=abc",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,r=abc,n=user",
            "p=tls-unique,,n=user,r=abc",
            "n,a=other,n=user,r=abc",
            "n,,m=must,n=user,r=abc",
            "n,,n=user,r=abc,m=must",
            "n,,n=user,r=abc,tokenauth=true",
            "n,,n=user,r=abc,nothing",
            "n,,n=us\0er,r=abc",
        ] {
            assert!(ClientFirst::read(message.as_bytes()).is_err(), "{message}");
        }
        assert!(ClientFirst::read(&[b'n', b',', b',', 0xff]).is_err());
        assert!(ClientFirst::read(&vec![b'n'; MESSAGE_LEN_MAX + 1]).is_err());
        let first = ClientFirst::read(b"n,a=user,n=user,r=abc,tokenauth=false").unwrap();
        for last in [
            "",
            "c=biws,r=abcdef",
            "c=biws,r=abcdef,p=",
            "c=biws,r=abcdef,p=!",
            "c=biws,r=abcdef,p=AAAA",
            "c=biws,r=abc,p=AAAA",
            "r=abcdef,c=biws,p=AAAA",
            "c=bixhPXVzZXIs,r=abcdef,x=1,p=AAAA",
        ] {
            let keys = Keys::of_password(Mechanism::Sha256, PASSWORD, vec![2; SALT_LEN], 1);
            let (server, _) = ServerExchange::begin(&first, keys, "def");
            assert!(server.finish(last.as_bytes()).is_err(), "{last}");
        }
        let mut client = ClientExchange::begin(Mechanism::Sha256, "user", PASSWORD, "abc").0;
        for (first, why) in [
            ("r=abc,s=AAAA,i=4096", "nonce"),
            ("r=abd,s=AAAA,i=4096", "nonce"),
            ("r=abcd,s=!,i=4096", "salt"),
            ("r=abcd,s=AAAA,i=4095", "iterations"),
            ("r=abcd,s=AAAA,i=1000001", "iterations"),
            ("r=abcd,s=AAAA", "iterations"),
        ] {
            let refused = client.answer(first.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(why), "{first}: {refused}");
        }
        assert_eq!(client.check(b"v="), Err(ScramError::Server), "nothing was proved to it");
    }

    #[test]
    fn a_client_may_say_its_nonce_twice_and_nothing_else_in_its_place() {
        for mechanism in Mechanism::ALL {
            let salt = vec![1; SALT_LEN];
            let keys = Keys::of_password(mechanism, PASSWORD, salt.clone(), ITERATIONS_MIN);
            let salted = Salting::new(mechanism, PASSWORD, &salt, ITERATIONS_MIN).finish();
            let client_key = mechanism.sign(&salted, b"Client Key");
            let first = ClientFirst::read(b"n,,n=user,r=abcdefgh").unwrap();
            let finish = |nonce: &str| {
                let (server, challenge) = ServerExchange::begin(&first, keys.clone(), "server");
                let before = format!("c=biws,r={nonce}");
                let said = format!("n=user,r=abcdefgh,{challenge},{before}");
                let signature = mechanism.sign(&mechanism.hash(&client_key), said.as_bytes());
                let proof: Vec<u8> = client_key
                    .iter()
                    .zip(&signature)
                    .map(|(one, other)| one ^ other)
                    .collect();
                server.finish(format!("{before},p={}", BASE64.encode(proof)).as_bytes())
            };
            for right in ["abcdefghserver", "abcdefghabcdefghserver"] {
                assert!(finish(right).is_ok(), "{right}");
            }
            for wrong in [
                "",
                "server",
                "abcdefgh",
                "xabcdefghserver",
                "abcdefghabcdefghabcdefghserver",
                "abcdefghserverx",
            ] {
                assert!(finish(wrong).is_err(), "{wrong}");
            }
        }
    }
}
