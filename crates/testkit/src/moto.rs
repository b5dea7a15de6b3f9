//! A second S3 server, of other people's making: `moto_server`, a Python program that answers as
//! Amazon's own documentation says, but asks nobody for a key.
//!
//! It keeps everything in memory. [`BucketServer`](crate::BucketServer) is the one that checks
//! signatures, logs and does wrong; this one is for exact answers.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::child::{ChildGuard, wait_until};

/// The program, for [`Need::Program`](crate::Need::Program).
pub const MOTO: &str = "moto_server";

/// A running `moto_server` with one bucket.
#[derive(Debug)]
pub struct MotoServer {
    _process: ChildGuard,
    address: SocketAddr,
    /// Has its log, which is not needed once it runs.
    _directory: TempDir,
}

impl MotoServer {
    /// The name of the bucket.
    pub const BUCKET: &str = "environments";

    /// Starts it on a free port of loopback.
    ///
    /// # Panics
    /// It does not start.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let said = File::create(&log).expect("a file in a new directory");
        let mut command = Command::new(MOTO);
        command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file can be cloned"))
            .stderr(said);
        let process = ChildGuard::spawn(&mut command).expect("moto_server can be started");
        let mut address = None;
        wait_until("moto_server runs", Duration::from_secs(60), || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            address = said.lines().find_map(|line| {
                let (_, address) = line.split_once("Running on http://")?;
                address.trim().parse().ok()
            });
            address.is_some()
        });
        let address = address.expect("it was waited for");
        let server = Self {
            _process: process,
            address,
            _directory: directory,
        };
        server.make_bucket();
        server
    }

    /// The endpoint of the protocol, as clients want it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn make_bucket(&self) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let head = format!(
            "PUT /{} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            Self::BUCKET,
            self.address
        );
        let mut answer = String::new();
        let answered = stream.write_all(head.as_bytes());
        let answered = answered.and_then(|()| stream.read_to_string(&mut answer));
        assert!(
            answered.is_ok() && answer.contains(" 200 "),
            "no bucket: {answer}"
        );
    }
}
