//! Environments from a gRPC server as SPFS has it.

use std::fs;
use std::os::unix::fs::FileExt as _;

use crate::place::Place;
use farseek_testkit::mount::is_mounted;
use farseek_testkit::{Need, Random, StockFault, StockServer, need};

const LARGE: usize = 20 << 20;

/// A place whose repository has `tools/x`, and a stock-like server over that repository.
fn served() -> (Place, StockServer) {
    let place = Place::make();
    let mut words = Random::new(7);
    let large: Vec<u8> = (0..LARGE / 8)
        .flat_map(|_| words.bits().to_le_bytes())
        .collect();
    place.write("tree/readme.txt", "hello\n");
    place.write("tree/lib/deep/large.bin", &large);
    for n in 0..50 {
        place.write(&format!("tree/small/{n}"), format!("number {n}"));
    }
    place.ok(&["commit", "tree", "-t", "tools/x", "-t", "other"]);
    let server = StockServer::start(&place.path("home/.local/share/spfs"));
    (place, server)
}

#[test]
fn a_stock_server_is_browsed_and_read() {
    let (_there, server) = served();
    let here = Place::make();
    let url = server.url();
    let tags = here.ok(&["tags", "--remote", &url]);
    assert!(tags.contains("tools/x") && tags.contains("other"), "{tags}");
    assert_eq!(
        here.ok(&["ls", "tools/x", "--remote", &url]),
        "lib/\nreadme.txt\nsmall/\n"
    );
    let read = here.ok(&["cat", "tools/x", "readme.txt", "--remote", &url]);
    assert_eq!(read, "hello\n");
    let told = here.told(&["ls", "no/such", "--remote", &url]);
    assert!(told.starts_with("exit 3"), "{told}");
    server.fault("", 100, StockFault::Unset);
    let told = here.told(&["ls", "tools/x", "--remote", &url]);
    assert!(told.contains("neither a result nor an error"), "{told}");
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn a_stock_server_is_mounted() {
    if !need("a_stock_server_is_mounted", &[Need::Fuse]) {
        return;
    }
    let (there, server) = served();
    let here = Place::make();
    let mount = here.path("mnt");
    fs::create_dir(&mount).unwrap();
    here.ok(&["mount", "tools/x", "mnt", "--remote", &server.url()]);
    let _unmount = Unmount(&here);
    assert!(is_mounted(&mount));
    let (found, right) = (mount.join("lib/deep/large.bin"), "tree/lib/deep/large.bin");
    let (found, right) = (
        fs::File::open(found).unwrap(),
        fs::read(there.path(right)).unwrap(),
    );
    let mut places = Random::new(1);
    for n in 0..40 {
        // The end first.
        let at = match n {
            0 => right.len() - 1000,
            _ => places.bits() as usize % (right.len() - 1000),
        };
        let mut bytes = [0; 1000];
        found.read_exact_at(&mut bytes, at as u64).unwrap();
        assert_eq!(bytes, right[at..at + 1000], "{at}");
    }
    for n in 0..50 {
        let small = fs::read_to_string(mount.join(format!("small/{n}"))).unwrap();
        assert_eq!(small, format!("number {n}"));
    }
    assert_eq!(
        fs::read_to_string(mount.join("readme.txt")).unwrap(),
        "hello\n"
    );
    let transfers = server
        .requests()
        .into_iter()
        .filter(|r| r.what.starts_with("GET /"));
    let large: Vec<u64> = transfers
        .map(|r| r.bytes_sent)
        .filter(|&bytes| bytes > 100)
        .collect();
    assert_eq!(
        large,
        [LARGE as u64],
        "the large file came once, for all reads"
    );
}

struct Unmount<'a>(&'a Place);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        self.0.take_off();
    }
}
