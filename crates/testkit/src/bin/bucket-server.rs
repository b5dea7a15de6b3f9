//! A bucket to try things with: `bucket-server DIRECTORY [LISTEN [LOG]]`.
//!
//! It speaks S3, keeps the bucket in DIRECTORY, prints its endpoint, bucket and keys as variables
//! of a shell, and runs until it is killed. LISTEN is an address with a port (a free port of
//! loopback, unless told). LOG is a file that gets a line for each request, its operation and
//! key, soon after it has come.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

use std::convert::Infallible;
use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use farseek_testkit::{BucketRequest, BucketServer};

/// How late the log may be.
const EVERY: Duration = Duration::from_millis(200);

const USAGE: &str = "usage: bucket-server DIRECTORY [LISTEN [LOG]]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (root, rest) = match arguments.as_slice() {
        [root, rest @ ..] if rest.len() <= 2 => (Path::new(root), rest),
        _ => return complain(USAGE),
    };
    let anywhere = Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let Ok(address) = rest.first().map_or(anywhere, |listen| listen.parse()) else {
        return complain(USAGE);
    };
    let server = match BucketServer::listen(root, address) {
        Ok(server) => server,
        Err(error) => return complain(&format!("{}, {address}: {error}", root.display())),
    };
    println!("BUCKET={}", BucketServer::BUCKET);
    println!("AWS_ENDPOINT_URL={}", server.endpoint());
    println!("AWS_ACCESS_KEY_ID={}", BucketServer::ACCESS_KEY);
    println!("AWS_SECRET_ACCESS_KEY={}", BucketServer::SECRET_KEY);
    println!("AWS_REGION={}", BucketServer::REGION);
    match keep_log(&server, rest.get(1).map(Path::new)) {
        Ok(never) => match never {},
        Err(error) => complain(&format!("the log: {error}")),
    }
}

fn complain(line: &str) -> ExitCode {
    eprintln!("{line}");
    ExitCode::FAILURE
}

/// Takes the requests from the server for ever, and writes them where there is a log.
fn keep_log(server: &BucketServer, path: Option<&Path>) -> io::Result<Infallible> {
    let mut log = path.map(File::create).transpose()?;
    loop {
        std::thread::sleep(EVERY);
        let requests = server.take_requests();
        if let Some(log) = &mut log {
            let line = |request: &BucketRequest| format!("{}\n", request.line());
            log.write_all(requests.iter().map(line).collect::<String>().as_bytes())?;
        }
    }
}
