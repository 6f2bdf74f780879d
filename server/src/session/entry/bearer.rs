//! OAUTHBEARER (RFC 7628): the message with a token in it, and whose that is.

use std::time::Duration;

use crate::{
    machine,
    tokens::{Refused, Tokens, Verified},
};

/// So long somebody waits whose token names a key that is not known yet, while the keys are fetched.
const KEYS_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether they are there.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A message that is longer is not read, in bytes.
const MESSAGE_LEN_MAX: usize = 14 * 1024;

/// Whose the token is that a message has; or why there is none, for the log.
pub(super) async fn verify(tokens: Option<&Tokens>, message: &[u8]) -> Result<Verified, String> {
    let tokens = tokens.ok_or("no tokens are taken")?;
    let Said { behalf, token } = Said::read(message)?;
    let mut checked = tokens.check(token);
    if checked == Err(Refused::UnknownKey) && tokens.ask() {
        let deadline = machine::now() + KEYS_WAIT;
        while tokens.is_under_way() && machine::now() < deadline {
            machine::sleep(LOOK_EVERY).await;
        }
        checked = tokens.check(token);
    }
    let verified = checked.map_err(|refused| format!("a token is refused: {refused}"))?;
    if behalf.is_some_and(|behalf| behalf != verified.name) {
        return Err("nobody can come in on behalf of somebody else".to_owned());
    }
    Ok(verified)
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
struct Said<'a> {
    /// Whom it wants to be, if it says so; as it stands, as no name that is escaped is anybody's here.
    behalf: Option<&'a str>,
    token: &'a str,
}

impl<'a> Said<'a> {
    /// Reads `n,[a=NAME],^Aauth=Bearer TOKEN^A[key=value^A]…^A`. What else it says is passed over, as Kafka does.
    fn read(message: &'a [u8]) -> Result<Said<'a>, String> {
        if message.len() > MESSAGE_LEN_MAX {
            return Err("a message is too long".to_owned());
        }
        let text = std::str::from_utf8(message).map_err(|_not_utf8| "the message is no UTF-8")?;
        let malformed = || "the message is not as RFC 7628 has it".to_owned();
        let rest = text.strip_prefix("n,").ok_or_else(malformed)?;
        let (behalf, rest) = rest.split_once(',').ok_or_else(malformed)?;
        let behalf = match behalf {
            "" => None,
            named => Some(named.strip_prefix("a=").ok_or_else(malformed)?),
        };
        let pairs = rest.strip_prefix('\x01').and_then(|rest| rest.strip_suffix("\x01\x01"));
        let mut token = None;
        for pair in pairs.ok_or_else(malformed)?.split('\x01') {
            let (key, value) = pair.split_once('=').ok_or_else(malformed)?;
            if key == "auth" && token.replace(value).is_some() {
                return Err(malformed());
            }
        }
        let (scheme, token) = token.and_then(|value| value.split_once(' ')).ok_or_else(malformed)?;
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.bytes().all(is_of_token) {
            return Err(malformed());
        }
        Ok(Said { behalf, token })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_clients_say_is_read_and_nothing_else() {
        let said = |text: &str| {
            Said::read(text.as_bytes()).map(|said| (said.behalf.map(str::to_owned), said.token.to_owned()))
        };
        let plain = Ok((None, "a.b-c_d.e".to_owned()));
        assert_eq!(said("n,,\x01auth=Bearer a.b-c_d.e\x01\x01"), plain);
        assert_eq!(said("n,,\x01auth=bearer a.b-c_d.e\x01host=x\x01port=1\x01\x01"), plain);
        let named = Ok((Some("alice".to_owned()), "t".to_owned()));
        assert_eq!(said("n,a=alice,\x01k=v\x01auth=Bearer t\x01\x01"), named);
        for wrong in [
            "",
            "n,,",
            "\x01auth=Bearer t\x01\x01",
            "y,,\x01auth=Bearer t\x01\x01",
            "n,alice,\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer t\x01",
            "n,,\x01auth=Bearer t",
            "n,,\x01auth=Basic t\x01\x01",
            "n,,\x01auth=Bearer\x01\x01",
            "n,,\x01auth=Bearer \x01\x01",
            "n,,\x01auth=Bearer t t\x01\x01",
            "n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
            "n,,\x01auth\x01\x01",
            "n,,\x01\x01",
            "n,,\x01auth=Bearer t\x01\x01\x01",
        ] {
            assert!(said(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_read_or_refused(before in ".{0,8}", middle in prop::collection::vec(any::<u8>(), 0..60), cut in 0..90_usize) {
            let mut message = b"n,,\x01auth=Bearer abc\x01x=y\x01\x01".to_vec();
            let at = cut % message.len();
            message.splice(at..at, middle);
            let message = [before.as_bytes(), &message].concat();
            if let Ok(said) = Said::read(&message) {
                prop_assert!(!said.token.is_empty() && said.token.is_ascii());
            }
        }
    }
}
