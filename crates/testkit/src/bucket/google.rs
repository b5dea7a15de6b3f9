//! What Google's XML protocol has that Amazon's has not: bearer tokens in the place of signatures, and
//! names of headers.
//!
//! A token is what a client signs with the key of a service account. Who it is for, by whom, and until
//! when is looked at; the signature is not, as in no emulator: whose key it is, the token's `kid` says.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderName};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::output_within;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-goog-copy-source");
const EMAIL: &str = "tests@farseek.invalid";
const KEY_ID: &str = "the-key-of-the-tests";

/// Marks a request whose token was a good one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted;

/// A service account, and its key in a file as Google gives it.
#[derive(Debug)]
pub(super) struct Google {
    directory: TempDir,
    key: String,
}

impl Google {
    /// Makes the account a key.
    ///
    /// # Panics
    /// `openssl` does not make one.
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("openssl");
        command.args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ]);
        let made = output_within(&mut command, Duration::from_secs(60)).expect("openssl runs");
        let key = String::from_utf8(made.stdout).expect("PEM is text");
        assert!(key.contains("PRIVATE KEY"), "openssl made no key");
        let account = json!({
            "type": "service_account",
            "client_email": EMAIL,
            "private_key_id": KEY_ID,
            "private_key": key,
        });
        let google = Self { directory, key };
        let account = account.to_string();
        let another = account.replace(KEY_ID, "another-key");
        for (file, text) in [
            (google.key_file(), account),
            (google.another_key_file(), another),
        ] {
            std::fs::write(file, text).expect("a file in a new directory");
        }
        google
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.json")
    }

    /// A key of the same account that is not known any more.
    pub(super) fn another_key_file(&self) -> PathBuf {
        self.directory.path().join("another-key.json")
    }

    /// The lines of the key, but for those that all keys have.
    pub(super) fn pieces_of_the_key(&self) -> impl Iterator<Item = String> {
        let lines = self.key.lines().filter(|line| !line.starts_with("---"));
        lines.skip(1).map(str::to_owned)
    }

    /// Whether what the request says of who sends it is good, where it says anything. Then it is one of
    /// S3's that needs no signature.
    pub(super) fn admit<B>(request: &mut Request<B>) -> bool {
        if let Some(source) = request.headers_mut().remove(COPY_SOURCE) {
            request.headers_mut().insert("x-amz-copy-source", source);
        }
        let Some(said) = request.headers_mut().remove(AUTHORIZATION) else {
            return true;
        };
        let token = said
            .to_str()
            .ok()
            .and_then(|said| said.strip_prefix("Bearer "));
        let is_good = token.is_some_and(is_good);
        if is_good {
            request.extensions_mut().insert(Admitted);
        }
        is_good
    }
}

fn is_good(token: &str) -> bool {
    let part = |number| -> Option<Value> {
        serde_json::from_slice(&decode(token.split('.').nth(number)?)?).ok()
    };
    let (Some(head), Some(claims)) = (part(0), part(1)) else {
        return false;
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    head["kid"] == KEY_ID && claims["iss"] == EMAIL && claims["exp"].as_u64() > Some(now)
}

/// Base64 as it is in addresses.
fn decode(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.trim_end_matches('=').bytes() {
        let value = LETTERS.iter().position(|known| *known == letter)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_addresses() {
        assert_eq!(decode("eyJhIjoxfQ").unwrap(), br#"{"a":1}"#);
        assert_eq!(decode("_-8=").unwrap(), [0xff, 0xef]);
        assert_eq!(decode("a+b"), None);
    }

    #[test]
    fn only_tokens_of_the_account_are_good() {
        // {"kid":"the-key-of-the-tests"} and {"iss":"tests@farseek.invalid","exp":9999999999}
        let head = "eyJraWQiOiJ0aGUta2V5LW9mLXRoZS10ZXN0cyJ9";
        let claims = "eyJpc3MiOiJ0ZXN0c0BmYXJzZWVrLmludmFsaWQiLCJleHAiOjk5OTk5OTk5OTl9";
        let ended = "eyJpc3MiOiJ0ZXN0c0BmYXJzZWVrLmludmFsaWQiLCJleHAiOjF9";
        assert!(is_good(&format!("{head}.{claims}.x")));
        assert!(!is_good(&format!("{head}.{ended}.x")));
        assert!(!is_good(&format!("e30.{claims}.x")));
        assert!(!is_good("anything"));
    }
}
