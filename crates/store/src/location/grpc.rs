//! The address of a gRPC server, with the parameters that only it has: pure, but for opening it.

use std::path::PathBuf;
use std::time::Duration;

use farseek_object::TagNamespace;
use url::Url;

use super::OpenOptions;
use crate::blocking;
use crate::error::{Result, StoreError};
use crate::grpc::{GrpcOptions, GrpcRepository, Token};

/// The parameters that only gRPC servers have.
pub(super) const PARAMETERS: [&str; 4] = [
    "timeout_ms",
    "max_decode_message_size_bytes",
    "max_encode_message_size_bytes",
    "token_file",
];

/// A gRPC server, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) url: Url,
    timeout: Option<Duration>,
    max_decode: Option<usize>,
    max_encode: Option<usize>,
    token_file: Option<PathBuf>,
}

impl Place {
    pub(super) fn new(url: Url) -> Self {
        Self {
            url,
            timeout: None,
            max_decode: None,
            max_encode: None,
            token_file: None,
        }
    }

    /// Takes one parameter; `false` where it is none of a gRPC server's.
    ///
    /// # Errors
    /// What is wrong with its value, in words.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "timeout_ms" => {
                let milliseconds = number(name, value)?;
                self.timeout = Some(Duration::from_millis(milliseconds as u64));
            }
            "max_decode_message_size_bytes" => self.max_decode = Some(number(name, value)?),
            "max_encode_message_size_bytes" => self.max_encode = Some(number(name, value)?),
            "token_file" if value.is_empty() => return Err("token_file names no file".to_owned()),
            "token_file" => self.token_file = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opens it; only the token's file is looked at.
    pub(super) async fn open(
        self,
        namespace: Option<TagNamespace>,
        options: OpenOptions,
    ) -> Result<GrpcRepository> {
        let defaults = GrpcOptions::default();
        let token = match self.token_file {
            None => None,
            Some(path) => Some(blocking::run(move || read_token(path)).await?),
        };
        let grpc = GrpcOptions {
            stall: self.timeout.unwrap_or(options.stall),
            namespace,
            max_decode_message_size: self.max_decode.unwrap_or(defaults.max_decode_message_size),
            max_encode_message_size: self.max_encode.unwrap_or(defaults.max_encode_message_size),
            token,
            ..defaults
        };
        GrpcRepository::open(&self.url, grpc)
    }
}

fn read_token(path: PathBuf) -> Result<Token> {
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(StoreError::io("read the token in", &path))?;
    text.parse().map_err(|error| match error {
        StoreError::Invalid { what, reason, .. } => StoreError::Invalid {
            what,
            text: path.display().to_string(),
            reason,
        },
        error => error,
    })
}

fn number(name: &str, value: &str) -> Result<usize, String> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| value.parse().ok()).flatten();
    number
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("{name} is a number above 0, not '{value}'"))
}
