//! The delaying proxy loses, reorders and hurries nothing.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use farseek_testkit::{ChildGuard, DelayProxy, Random, output_within};

/// A wait that only a hang reaches.
const DEADLINE: Duration = Duration::from_secs(60);

/// Accepts `connections` and has each served on a thread of its own.
fn server(
    connections: usize,
    serve: impl Fn(TcpStream) + Send + Clone + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let all: Vec<_> = (0..connections)
            .map(|_| {
                let stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let serve = serve.clone();
                thread::spawn(move || serve(stream))
            })
            .collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
    (address, thread)
}

fn connect(proxy: &DelayProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends back what it gets, as it gets it.
fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => stream.write_all(&buffer[..count]).unwrap(),
        }
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// Sends `bytes` in pieces of odd sizes, ends, and returns what came back.
fn round_trip(stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = bytes;
            for size in [1, 2, 4095, 4097, 65_535, 65_537].iter().cycle() {
                let (now, later) = rest.split_at((*size).min(rest.len()));
                writer.write_all(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        (&*stream).read_to_end(&mut back).unwrap();
        back
    })
}

#[test]
fn bytes_arrive_whole_and_in_order() {
    let (target, serving) = server(3, echo);
    for each_way in [0, 1, 7].map(Duration::from_millis) {
        let proxy = DelayProxy::start(target, each_way, None);
        let bytes = noise(1, 9_000_001);
        assert!(round_trip(&connect(&proxy), &bytes) == bytes);
        assert_eq!(proxy.connections(), 1);
    }
    serving.join().unwrap();
}

#[test]
fn nothing_arrives_early_and_a_connection_costs_a_round_trip() {
    const EACH_WAY: Duration = Duration::from_millis(40);
    let (target, serving) = server(1, echo);
    let proxy = DelayProxy::start(target, EACH_WAY, None);
    // The proxy cannot have accepted before the client has asked to be connected.
    let started = Instant::now();
    let mut stream = connect(&proxy);
    let mut byte = [0];
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut byte).unwrap();
    assert!(started.elapsed() >= 4 * EACH_WAY);
    let started = Instant::now();
    stream.write_all(b"b").unwrap();
    stream.read_exact(&mut byte).unwrap();
    assert!(started.elapsed() >= 2 * EACH_WAY);
    assert_eq!(&byte, b"b");
    drop(stream);
    serving.join().unwrap();
}

#[test]
fn the_delay_does_not_limit_what_is_on_its_way() {
    // The server answers nothing before it has all, and each piece is sent a while after the one
    // before: if the proxy let only one be on its way, a hundred would take a hundred delays.
    const EACH_WAY: Duration = Duration::from_millis(600);
    let (target, serving) = server(1, |mut stream: TcpStream| {
        stream.read_exact(&mut [0; 100]).unwrap();
        stream.write_all(b"!").unwrap();
    });
    let proxy = DelayProxy::start(target, EACH_WAY, None);
    let mut stream = connect(&proxy);
    let started = Instant::now();
    for _ in 0..100 {
        stream.write_all(b"x").unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    stream.read_exact(&mut [0]).unwrap();
    assert!(started.elapsed() < 90 * EACH_WAY);
    drop(stream);
    serving.join().unwrap();
}

#[test]
fn a_line_carries_no_more_than_it_may() {
    const RATE: u64 = 4_000_000;
    let (target, serving) = server(4, echo);
    let proxy = DelayProxy::start(target, Duration::ZERO, Some(RATE));
    let started = Instant::now();
    let bytes = noise(2, 500_000);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(round_trip(&connect(&proxy), &bytes) == bytes));
        }
    });
    // Two million bytes each way over one line: half a second less the slack at its start.
    assert!(started.elapsed() >= Duration::from_millis(490));
    serving.join().unwrap();
}

#[test]
fn an_end_travels_alone() {
    // The server answers only after the end of what it gets: the other direction lives on.
    let (target, serving) = server(2, |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    });
    for each_way in [0, 20].map(Duration::from_millis) {
        let proxy = DelayProxy::start(target, each_way, None);
        let mut bytes = noise(3, 100_000);
        let back = round_trip(&connect(&proxy), &bytes);
        bytes.reverse();
        assert!(back == bytes);
    }
    serving.join().unwrap();
}

#[test]
fn a_server_may_speak_first_and_end_first() {
    let (target, serving) = server(1, |mut stream: TcpStream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"bye");
    });
    let proxy = DelayProxy::start(target, Duration::from_millis(5), None);
    let mut stream = connect(&proxy);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"hello");
    stream.write_all(b"bye").unwrap();
    drop(stream);
    serving.join().unwrap();
}

#[test]
fn two_hundred_connections_at_once() {
    let (target, serving) = server(200, echo);
    let proxy = DelayProxy::start(target, Duration::from_millis(3), None);
    let streams: Vec<_> = (0..200).map(|_| connect(&proxy)).collect();
    for (i, mut stream) in streams.iter().enumerate() {
        stream.write_all(&noise(i as u64, 5000)).unwrap();
    }
    for (i, mut stream) in streams.iter().enumerate().rev() {
        let mut back = vec![0; 5000];
        stream.read_exact(&mut back).unwrap();
        assert!(back == noise(i as u64, 5000));
    }
    assert_eq!(proxy.connections(), 200);
    drop(streams);
    serving.join().unwrap();
}

#[test]
fn a_cut_connection_is_cut_on_the_other_side() {
    let (target, serving) = server(1, |mut stream: TcpStream| {
        // Unread bytes at the close make the kernel send a reset.
        thread::sleep(Duration::from_millis(50));
        stream.read_exact(&mut [0]).unwrap();
    });
    let proxy = DelayProxy::start(target, Duration::from_millis(1), None);
    let mut stream = connect(&proxy);
    stream.write_all(b"more than one byte").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    serving.join().unwrap();
}

#[test]
fn a_target_that_is_not_there_cuts_the_client_off() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let target = nobody.local_addr().unwrap();
    drop(nobody);
    let proxy = DelayProxy::start(target, Duration::from_millis(1), None);
    let error = connect(&proxy).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_drop_ends_connections_and_frees_the_port() {
    let (target, serving) = server(2, echo);
    let proxy = DelayProxy::start(target, Duration::from_secs(1), None);
    let address = proxy.address();
    let mut busy = connect(&proxy);
    busy.write_all(&noise(4, 100_000)).unwrap();
    let mut idle = connect(&proxy);
    // Both have reached the server, or never will.
    thread::sleep(Duration::from_millis(10));
    drop(proxy);
    for stream in [&mut busy, &mut idle] {
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    assert_eq!(
        TcpStream::connect(address).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    // What the proxy had not yet opened, the test opens, so that the server can end.
    while !serving.is_finished() {
        drop(TcpStream::connect_timeout(
            &target,
            Duration::from_millis(100),
        ));
        thread::sleep(Duration::from_millis(5));
    }
    serving.join().unwrap();
}

#[test]
fn it_can_be_dropped_inside_of_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    runtime.block_on(async { drop(DelayProxy::start(nowhere, Duration::ZERO, None)) });
}

#[test]
fn the_program_says_where_it_listens() {
    let (target, serving) = server(1, echo);
    let mut command = Command::new(env!("CARGO_BIN_EXE_delay-proxy"));
    command.args([&target.to_string(), "0.5"]);
    let mut proxy = ChildGuard::spawn(command.stdout(Stdio::piped())).unwrap();
    let mut line = String::new();
    let stdout = proxy.child().stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    assert!(round_trip(&stream, b"bytes") == b"bytes");
    serving.join().unwrap();
}

#[test]
fn the_program_refuses_what_it_does_not_understand() {
    for arguments in [
        &["127.0.0.1:1"][..],
        &["there", "1"],
        &["127.0.0.1:1", "-1"],
        &["127.0.0.1:1", "1", "x"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_delay-proxy"));
        let output = output_within(command.args(arguments), DEADLINE).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("usage:"),
            "{arguments:?}"
        );
    }
}
