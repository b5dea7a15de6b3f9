//! Clients that ask and do not take, that come and do not go, and what becomes of others.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_store::{
    Access, GrpcOptions, GrpcRepository, MemoryRepository, Repository, ServeOptions, SpfsServer,
    SpfsServerOptions,
};
use farseek_testkit::stock_client::{StockClient, digest_field};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::line::{connect, framed, request};
use super::streaming::{Endless, OBJECT};
use super::{open_to_all, serve};

/// Large answers that a server makes at once.
const MAKING: u64 = 8;

/// Looks again and again, for a minute at most.
async fn comes_true(is: impl Fn() -> bool) -> bool {
    for _ in 0..6000 {
        if is() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

fn an_object() -> Full<Bytes> {
    framed(&digest_field(1, Digest::of(b"any").as_bytes()))
}

/// Asks for `count` objects on one connection, and gives what drives it.
async fn ask_for_many(
    address: SocketAddr,
    count: usize,
) -> (
    tokio::task::JoinHandle<hyper::Result<()>>,
    Vec<tokio::task::JoinHandle<()>>,
) {
    let (sender, connection) = connect::<Full<Bytes>>(address, Some(0)).await;
    let asking = (0..count).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            sender.ready().await.unwrap();
            let asked = request(address, "DatabaseService/ReadObject", an_object());
            // The answer is kept, and nothing of it is read.
            let _answer = sender.send_request(asked).await;
            std::future::pending::<()>().await;
        })
    });
    (connection, asking.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_bounded_together() {
    let endless = Endless::default();
    let made = Arc::clone(&endless.objects);
    let most = 8 * OBJECT;
    let options = SpfsServerOptions {
        max_held_bytes: most,
        ..open_to_all()
    };
    let server = serve(Arc::new(endless), options).await;
    let mut held_most = 0;
    let mut hostile = Vec::new();
    for _ in 0..2 {
        hostile.push(ask_for_many(server.grpc_addr(), 100).await);
    }
    assert!(comes_true(|| server.stats().held_bytes >= most / 4).await);
    // It settles there: two hundred answers would be four hundred megabytes.
    let mut seen = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        held_most = held_most.max(server.stats().held_bytes);
        seen = made.load(Ordering::SeqCst);
    }
    let room = most / 4 + MAKING * (OBJECT + 4096);
    assert!((1..=room).contains(&held_most), "{held_most} of {room}");
    assert!(seen <= 2 + MAKING, "{seen} were made");
    // Who asks for little is answered meanwhile.
    let client = StockClient::connect(server.grpc_addr()).await;
    assert_eq!(
        client.call("/spfs.Repository/Ping", b"").await.message(),
        b""
    );
    // Who goes leaves nothing behind.
    for (connection, asking) in hostile {
        asking.iter().for_each(tokio::task::JoinHandle::abort);
        connection.abort();
    }
    assert!(comes_true(|| server.stats().held_bytes == 0).await);
    let ask = digest_field(1, Digest::of(b"any").as_bytes());
    let answer = client.call("/spfs.DatabaseService/ReadObject", &ask).await;
    assert!(answer.message().len() as u64 > OBJECT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_is_hung_up_on_and_who_is_slow_is_not() {
    let stall = Duration::from_secs(4);
    let options = SpfsServerOptions {
        limits: ServeOptions {
            write_stall: stall,
            ..ServeOptions::default()
        },
        ..open_to_all()
    };
    let server = serve(Arc::new(Endless::default()), options).await;
    let address = server.grpc_addr();
    let (hostile, asking) = ask_for_many(address, 3).await;
    let (mut sender, _connection) = connect::<Full<Bytes>>(address, Some(16 << 10)).await;
    let asked = request(address, "DatabaseService/ReadObject", an_object());
    let mut answer = sender.send_request(asked).await.unwrap().into_body();
    let mut taken = 0;
    let slowly = async {
        // A hundred and thirty pieces: longer than the stall in all, each one far shorter.
        while let Some(frame) = answer.frame().await {
            taken += frame
                .unwrap()
                .into_data()
                .map_or(0, |data| data.len() as u64);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    let ends = tokio::time::timeout(Duration::from_secs(60), hostile);
    let ((), ended) = tokio::join!(slowly, ends);
    assert!(ended.is_ok(), "the stalled one is hung up on");
    assert!(taken > OBJECT, "the slow one gets all");
    asking.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(comes_true(|| server.stats().held_bytes == 0).await);
}

/// What a client has to do while it is busy elsewhere is nothing, unless others wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_may_rest_until_others_wait_for_its_place() {
    let options = SpfsServerOptions {
        limits: ServeOptions {
            write_stall: Duration::from_millis(200),
            ..ServeOptions::default()
        },
        idle: Duration::from_millis(200),
        max_calls: 2,
        ..open_to_all()
    };
    let server = serve(Arc::new(Endless::default()), options).await;
    let address = server.grpc_addr();
    let (mut sender, connection) = connect::<Full<Bytes>>(address, None).await;
    let list = || request(address, "PayloadService/IterDigests", framed(b""));
    let mut answer = sender.send_request(list()).await.unwrap().into_body();
    // Long after both deadlines there is more to take.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..100 {
        assert!(
            !answer
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .is_empty()
        );
    }
    // A second one, and all calls are taken.
    let _second = sender.send_request(list()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), connection).await;
    assert!(ended.is_ok(), "one that rests makes room");
    let client = StockClient::connect(address).await;
    assert_eq!(
        client.call("/spfs.Repository/Ping", b"").await.message(),
        b""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_calls_is_ended_and_its_client_does_not_notice() {
    let options = SpfsServerOptions {
        idle: Duration::from_millis(200),
        ..open_to_all()
    };
    let server = serve(Arc::new(MemoryRepository::new()), options).await;
    let url = format!("grpc://{}", server.grpc_addr());
    let client = GrpcRepository::open(&url.parse().unwrap(), GrpcOptions::default()).unwrap();
    for _ in 0..3 {
        assert!(!client.has_object(&Digest::EMPTY).await.unwrap());
        assert!(comes_true(|| server.stats().connections == 0).await);
    }
}

async fn guarded(most: usize, of_one: usize) -> SpfsServer {
    let options = SpfsServerOptions {
        limits: ServeOptions {
            max_connections: most,
            ..ServeOptions::default()
        },
        max_connections_of_one: of_one,
        access: Access::tokens("read reading").unwrap(),
        ..open_to_all()
    };
    serve(Arc::new(MemoryRepository::new()), options).await
}

/// Whether the server has ended this connection.
async fn is_ended(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_keep_nobody_out_and_who_is_known_is_not_sent_away() {
    let server = guarded(4, 256).await;
    for address in [server.grpc_addr(), server.http_addr()] {
        let known = StockClient::connect(server.grpc_addr())
            .await
            .with_token("reading");
        assert_eq!(
            known.call("/spfs.Repository/Ping", b"").await.message(),
            b""
        );
        let mut strangers = Vec::new();
        for _ in 0..20 {
            strangers.push(TcpStream::connect(address).await.unwrap());
        }
        // The last ones are waited for by nobody; the first ones made room.
        assert!(is_ended(&mut strangers[0]).await);
        let client = StockClient::connect(server.grpc_addr())
            .await
            .with_token("reading");
        assert_eq!(
            client.call("/spfs.Repository/Ping", b"").await.message(),
            b""
        );
        let mut http = TcpStream::connect(server.http_addr()).await.unwrap();
        let request = format!(
            "GET /{} HTTP/1.1\r\nauthorization: Bearer reading\r\nconnection: close\r\n\r\n",
            Digest::EMPTY
        );
        http.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        http.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert_eq!(
            known.call("/spfs.Repository/Ping", b"").await.message(),
            b""
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_gets_its_part_and_others_get_theirs() {
    let server = guarded(8, 2).await;
    let address = server.grpc_addr();
    let come = |from: [u8; 4]| async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::from(from), 0)).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut first = Vec::new();
    for _ in 0..2 {
        let stream = come([127, 0, 0, 1]).await;
        let client = StockClient::over(stream, address)
            .await
            .with_token("reading");
        assert_eq!(
            client.call("/spfs.Repository/Ping", b"").await.message(),
            b""
        );
        first.push(client);
    }
    assert!(is_ended(&mut come([127, 0, 0, 1]).await).await);
    let client = StockClient::over(come([127, 0, 0, 2]).await, address).await;
    let client = client.with_token("reading");
    assert_eq!(
        client.call("/spfs.Repository/Ping", b"").await.message(),
        b""
    );
    assert_eq!(
        first[0].call("/spfs.Repository/Ping", b"").await.message(),
        b""
    );
}

/// Megabytes that are sent of a message that never ends.
const SENT: u64 = 24;

type Unending = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// The beginning of a message of a hundred megabytes. Counts what is taken of it.
fn unending(taken: Arc<AtomicU64>) -> Unending {
    let head = Bytes::from([&[0], &(100_u32 << 20).to_be_bytes()[..]].concat());
    let pieces = stream::iter(0..SENT).map(move |_| {
        taken.fetch_add(1, Ordering::SeqCst);
        Bytes::from(vec![0; 1 << 20])
    });
    let pieces = stream::iter([head]).chain(pieces).chain(stream::pending());
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))).boxed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_do_not_end_are_bounded_together() {
    let server = serve(Arc::new(MemoryRepository::new()), open_to_all()).await;
    let address = server.grpc_addr();
    let send = async |taken: &Arc<AtomicU64>| {
        let (mut sender, connection) = connect::<Unending>(address, None).await;
        let body = unending(Arc::clone(taken));
        let asked = request(address, "DatabaseService/WriteObject", body);
        let sending = tokio::spawn(async move { sender.send_request(asked).await });
        (sending, connection)
    };
    let taken = Arc::default();
    let mut hostile = Vec::new();
    for _ in 0..8 {
        hostile.push(send(&taken).await);
    }
    // Two come as far as they are sent, and of the others what there is room for.
    assert!(comes_true(|| taken.load(Ordering::SeqCst) >= 2 * SENT + 6 * 4).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let came = taken.load(Ordering::SeqCst);
    assert!(came <= 2 * SENT + 6 * 8, "{came} megabytes of {}", 8 * SENT);
    // Others are answered meanwhile, and who goes gives the room back.
    let client = StockClient::connect(address).await;
    let answer = client.call("/spfs.Repository/Ping", b"").await;
    assert_eq!(answer.message(), b"");
    for (sending, connection) in hostile {
        sending.abort();
        connection.abort();
    }
    let taken = Arc::default();
    let (sending, connection) = send(&taken).await;
    assert!(comes_true(|| taken.load(Ordering::SeqCst) == SENT).await);
    sending.abort();
    connection.abort();
}
