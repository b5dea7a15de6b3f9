//! The secret by which a client may use a server.

use std::fmt;
use std::str::FromStr;

use reqwest::header::HeaderValue;

use crate::error::StoreError;

/// A bearer token. It is sent with requests and appears nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

impl Token {
    /// The value of `Authorization`, marked as secret.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl FromStr for Token {
    type Err = StoreError;

    /// The text without the white space around it: files end with a new line.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let invalid = |reason: &str| StoreError::Invalid {
            what: "token",
            text: "…".to_owned(),
            reason: reason.to_owned(),
        };
        let token = text.trim();
        if token.is_empty() {
            return Err(invalid("it is empty"));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("only visible ASCII characters are allowed in it"));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .expect("visible ASCII is a header value");
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sent_and_never_shown() {
        let token: Token = " secret\n".parse().unwrap();
        assert_eq!(token.authorization(), "Bearer secret");
        assert!(!format!("{token:?} {:?}", token.authorization()).contains("secret"));
        for text in ["", " \n", "sec ret", "secr\u{e9}t", "secret\0"] {
            let error = text.parse::<Token>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secr"), "{error:?}");
        }
    }
}
