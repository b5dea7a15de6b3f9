//! Stands before a server as if it were far away:
//! `delay-proxy TARGET DELAY_MS [LISTEN [BYTES_PER_SECOND]]`.
//!
//! TARGET and LISTEN are addresses with ports; the delay is that of each direction. It prints the
//! address where it listens (a free port of loopback, unless told), and runs until it is killed.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use farseek_testkit::DelayProxy;

const USAGE: &str = "usage: delay-proxy TARGET DELAY_MS [LISTEN [BYTES_PER_SECOND]]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match start(&arguments) {
        Ok(proxy) => {
            println!("{}", proxy.address());
            loop {
                std::thread::park();
            }
        }
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[&str]) -> Result<DelayProxy, String> {
    let (target, delay, rest) = match arguments {
        [target, delay, rest @ ..] if rest.len() <= 2 => (*target, *delay, rest),
        _ => return Err(USAGE.to_owned()),
    };
    let milliseconds: f64 = parse(delay)?;
    let each_way = Duration::try_from_secs_f64(milliseconds / 1000.0)
        .map_err(|error| format!("'{delay}': {error}\n{USAGE}"))?;
    let listen = rest.first().map(|listen| parse(listen)).transpose()?;
    let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let rate = rest.get(1).map(|rate| parse(rate)).transpose()?;
    DelayProxy::listen(listen, parse(target)?, each_way, rate)
        .map_err(|error| format!("{listen}: {error}"))
}

fn parse<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not understood\n{USAGE}"))
}
