//! What a read costs, as the server counts it.

use std::time::Duration;

use farseek_testkit::{Fault, Need, ReadKind, Reader, Request, Rule, need, read_once};

use crate::remote::Remote;

const BLOCK: u64 = 256 << 10;
const MINUTE: Duration = Duration::from_secs(60);

/// The one request is for at most one block, and that block holds `offset`.
fn assert_one_block(requests: &[Request], offset: u64) {
    let [request] = requests else {
        panic!("not one request: {requests:#?}")
    };
    let (first, last) = request.range.expect("a ranged request");
    assert_eq!(request.status, Some(206));
    assert!(
        first <= offset && offset <= last,
        "{first}..={last} without {offset}"
    );
    assert!(
        last - first < BLOCK,
        "{first}..={last} is more than a block"
    );
    assert_eq!(first % BLOCK, 0, "a block starts where blocks start");
    assert!(request.body_bytes_sent <= BLOCK);
}

fn one_byte_of(size: u64, test: &str) {
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let middle = size / 2;
    let (remote, layer) = Remote::handmade(|made| {
        made.sparse("big", size, &[(middle, 42)]).unwrap();
    });
    let mount = remote.mount(&layer, &[]);
    let byte = read_once(ReadKind::Read, &mount.path().join("big"), middle).unwrap();
    assert_eq!(byte, Some(42));
    assert_eq!(
        remote.server.requests().len(),
        1,
        "{:#?}",
        remote.server.requests()
    );
    assert_one_block(&remote.payload_requests(), middle);
    mount.unmount();
}

#[test]
fn one_byte_in_the_middle_of_a_gibibyte_costs_one_block() {
    one_byte_of(
        1 << 30,
        "one_byte_in_the_middle_of_a_gibibyte_costs_one_block",
    );
}

#[test]
fn one_byte_in_the_middle_of_a_hundred_gibibytes_costs_one_block() {
    one_byte_of(
        100 << 30,
        "one_byte_in_the_middle_of_a_hundred_gibibytes_costs_one_block",
    );
}

pub(crate) fn a_byte_costs_one_block_in_every_way_of_reading() {
    if !need(
        "a_byte_costs_one_block_in_every_way_of_reading",
        &[Need::Fuse],
    ) {
        return;
    }
    // In the middle of a block: a page fault also reads the pages around it.
    let offset_of = |number: u64| (number + 1) * 1_000 * BLOCK + BLOCK / 2;
    let (remote, layer) = Remote::handmade(|made| {
        let marks = [0, 1, 2, 3].map(|number| (offset_of(number), 100 + number as u8));
        made.sparse("big", 4 << 30, &marks).unwrap();
    });
    let mount = remote.mount(&layer, &[]);
    for (number, kind) in (0..).zip(&ReadKind::ALL[..4]) {
        let offset = offset_of(number);
        let byte = read_once(*kind, &mount.path().join("big"), offset).unwrap();
        assert_eq!(byte, Some(100 + number as u8), "{kind:?}");
        assert_one_block(&remote.payload_requests(), offset);
        remote.server.clear();
    }
    mount.unmount();
}

#[test]
fn metadata_and_seeks_cost_nothing() {
    if !need("metadata_and_seeks_cost_nothing", &[Need::Fuse]) {
        return;
    }
    let (remote, layer) = Remote::handmade(|made| {
        made.sparse("big", 100 << 30, &[]).unwrap();
        made.file("small", 0o644, b"small").unwrap();
    });
    let mount = remote.mount(&layer, &[]);
    let big = mount.path().join("big");
    assert_eq!(std::fs::metadata(&big).unwrap().len(), 100 << 30);
    let names = std::fs::read_dir(mount.path()).unwrap().count();
    assert_eq!(names, 2);
    let mut file = std::fs::File::open(&big).unwrap();
    let end = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(-1)).unwrap();
    assert_eq!(end, (100 << 30) - 1);
    assert!(std::fs::metadata(mount.path().join("missing")).is_err());
    drop(file);
    assert_eq!(remote.server.requests(), []);
    mount.unmount();
}

#[test]
fn sixty_four_processes_that_read_one_block_at_once_cost_one_request() {
    let test = "sixty_four_processes_that_read_one_block_at_once_cost_one_request";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let middle = 512 << 20;
    let (remote, layer) = Remote::handmade(|made| {
        made.sparse("big", 1 << 30, &[]).unwrap();
    });
    let mount = remote.mount(&layer, &[]);
    // Long enough for all of them to have asked before the block is there.
    remote
        .server
        .set_faults([Rule::new("payloads/", Fault::Delay(Duration::from_secs(2)))]);
    let path = mount.path().join("big");
    // Half of them past the page cache, so that the mount itself is asked as well; all of them
    // near the start of the block, so that what the kernel reads ahead is in the block too.
    let readers: Vec<_> = (0..64)
        .map(|number| Reader {
            kind: if number % 2 == 0 {
                ReadKind::Direct
            } else {
                ReadKind::Read
            },
            path: path.clone(),
            offset: middle + number / 2 % 4 * 4096,
        })
        .map(|reader| reader.spawn().unwrap())
        .collect();
    for mut reader in readers {
        assert!(reader.wait_within(MINUTE).unwrap().success());
    }
    assert_one_block(&remote.payload_requests(), middle);
    mount.unmount();
}
