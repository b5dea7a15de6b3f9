//! Azure's object store on loopback: Azurite, Microsoft's own emulator of it, in Node.
//!
//! It keeps everything in memory, and checks keys and tokens. Tests speak to it through a
//! [`BucketServer`](crate::BucketServer), which logs and does wrong.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use farseek_object::Digest;
use tempfile::TempDir;

use crate::child::{ChildGuard, wait_until};

/// The program, for [`Need::Program`](crate::Need::Program).
pub const AZURITE: &str = "azurite-blob";

/// A running `azurite-blob` with one container.
#[derive(Debug)]
pub(crate) struct Azurite {
    _process: ChildGuard,
    address: SocketAddr,
    /// Has its log, which is not needed once it runs.
    _directory: TempDir,
}

impl Azurite {
    pub(crate) const ACCOUNT: &str = "farseektests";
    /// The key of the account: 64 bytes.
    const KEY: [u8; 64] = *b"zHushNobodyMayEverSeeThis0123456789+TheKeyOfTheAccountOfTests.%/";
    pub(crate) const LATER: &str = "2099-01-01T00:00:00Z";
    pub(crate) const LONG_AGO: &str = "2001-01-01T00:00:00Z";

    /// Starts it on a free port of loopback, and makes `container`.
    ///
    /// # Panics
    /// It does not start.
    pub(crate) fn start(container: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let said = File::create(&log).expect("a file in a new directory");
        let mut command = Command::new(AZURITE);
        command
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0"])
            .args([
                "--inMemoryPersistence",
                "--disableTelemetry",
                "--skipApiVersionCheck",
            ])
            .env(
                "AZURITE_ACCOUNTS",
                format!("{}:{}", Self::ACCOUNT, Self::key()),
            )
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file can be cloned"))
            .stderr(said);
        let process = ChildGuard::spawn(&mut command).expect("azurite-blob can be started");
        let mut address = None;
        wait_until("azurite-blob runs", Duration::from_secs(60), || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            address = said.lines().find_map(|line| {
                let (_, address) = line.split_once("successfully listens on http://")?;
                address.trim().parse().ok()
            });
            address.is_some()
        });
        let address = address.expect("it was waited for");
        let azurite = Self {
            _process: process,
            address,
            _directory: directory,
        };
        azurite.make(container);
        azurite
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key as clients have it.
    pub(crate) fn key() -> String {
        base64(&Self::KEY)
    }

    /// A token that lets its bearer do everything until `expiry`.
    pub(crate) fn token(expiry: &str) -> String {
        let signature = Self::signature(expiry);
        let signature = signature
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        format!("sv=2018-11-09&ss=b&srt=sco&sp=rwdlac&se={expiry}&spr=https,http&sig={signature}")
    }

    /// What signs that token: as Microsoft's "Create an account SAS" has it.
    pub(crate) fn signature(expiry: &str) -> String {
        let signed = format!(
            "{}\nrwdlac\nb\nsco\n\n{expiry}\n\nhttps,http\n2018-11-09\n",
            Self::ACCOUNT
        );
        base64(&hmac(&Self::KEY, signed.as_bytes()))
    }

    fn make(&self, container: &str) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let head = format!(
            "PUT /{}/{container}?restype=container&{} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
            Self::ACCOUNT,
            Self::token(Self::LATER),
            self.address
        );
        let mut answer = String::new();
        let answered = stream.write_all(head.as_bytes());
        let answered = answered.and_then(|()| stream.read_to_string(&mut answer));
        assert!(
            answered.is_ok() && answer.contains(" 201 "),
            "no container: {answer}"
        );
    }
}

/// HMAC with SHA-256, of a key as long as one of its blocks.
fn hmac(key: &[u8; 64], text: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| key.map(|byte| byte ^ pad);
    let inner = Digest::of(&[&padded(0x36), text].concat());
    let outer = Digest::of(&[&padded(0x5c)[..], inner.as_bytes()].concat());
    *outer.as_bytes()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let at = |index: usize| u32::from(bytes.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let letter = |place: usize| match place <= bytes.len() {
            true => char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]),
            false => '=',
        };
        [0, 1, 2, 3].map(letter)
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_others_write_it() {
        let table = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (bytes, text) in table {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    /// As RFC 4231 has it in its second case, the key filled up with zeros.
    #[test]
    fn hmac_as_others_compute_it() {
        let mut key = [0; 64];
        key[..4].copy_from_slice(b"Jefe");
        let found = hmac(&key, b"what do ya want for nothing?");
        assert_eq!(found[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(found[28..], [0x64, 0xec, 0x38, 0x43]);
    }
}
