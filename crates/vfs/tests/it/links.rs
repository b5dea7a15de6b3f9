//! The targets of many links are not fetched one after the other.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use farseek_testkit::wait_until;

use crate::fixture::{Mounted, Tree, link};

const MANY: usize = 600;

fn many() -> Tree {
    (0..MANY)
        .map(|n| (format!("link-{n:04}"), link(&format!("target-{n}"))))
        .collect()
}

#[test]
fn one_link_costs_one_request() {
    let Some(mounted) = Mounted::new("one link", &many()) else {
        return;
    };
    for _ in 0..2 {
        let target = fs::read_link(mounted.join("link-0300")).unwrap();
        assert_eq!(target.to_str(), Some("target-300"));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(mounted.core.gate.requests().len(), 1);
}

#[test]
fn a_listing_loads_what_comes_next() {
    let Some(mounted) = Mounted::new("many links", &many()) else {
        return;
    };
    fs::read_link(mounted.join("link-0000")).unwrap();
    fs::read_link(mounted.join("link-0001")).unwrap();
    // Nobody has asked for these yet.
    wait_until(
        "the links that follow are loaded",
        Duration::from_secs(10),
        || mounted.core.gate.requests().len() >= 2 + 16,
    );
    for n in 0..MANY {
        let target = fs::read_link(mounted.join(&format!("link-{n:04}"))).unwrap();
        assert_eq!(target.to_str(), Some(format!("target-{n}").as_str()));
    }
    let requests = mounted.core.gate.requests();
    let distinct: HashSet<_> = requests.iter().map(|(digest, _)| *digest).collect();
    assert_eq!((requests.len(), distinct.len()), (MANY, MANY));
}
