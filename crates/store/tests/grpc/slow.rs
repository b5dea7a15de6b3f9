//! A line that lets so many bytes an instant through towards the client.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// The near end of a slow line.
pub(crate) struct Line(SocketAddr);

impl Line {
    /// A line to the server of `url` that takes `pause` for each `piece` bytes of its answers.
    pub(crate) fn start(url: &str, piece: usize, pause: Duration) -> Self {
        let server: SocketAddr = url
            .trim_start_matches("grpc://")
            .parse()
            .expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for near in listener.incoming().take(16) {
                let near = near.expect("a connection");
                let far = TcpStream::connect(server).expect("a server");
                let up = (near.try_clone(), far.try_clone());
                let up = (up.0.expect("a clone"), up.1.expect("a clone"));
                std::thread::spawn(move || pump(up.0, up.1, 64 << 10, Duration::ZERO));
                std::thread::spawn(move || pump(far, near, piece, pause));
            }
        });
        Self(address)
    }

    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.0)
    }
}

/// Moves bytes until either end closes.
fn pump(mut from: TcpStream, mut to: TcpStream, piece: usize, pause: Duration) {
    let mut buffer = vec![0; piece];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(pause);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other direction ends with this one.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A server that answers whatever it is sent in HTTP/1.1.
pub(crate) fn old_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().take(16) {
            let mut stream = stream.expect("a connection");
            let mut head = [0; 24];
            let read = stream.read_exact(&mut head);
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno\n";
            let _ = read.and_then(|()| stream.write_all(answer));
            // Closing at once with unread bytes would take the answer back.
            let _ = stream.read(&mut head);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    address
}
