//! The messages in `src/grpc/generated.rs` are what `proto/spfs.proto` gives. They are committed,
//! so that nobody needs a protobuf compiler to build; to make them again, run this test with
//! `FARSEEK_GENERATE=1`.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

#[test]
fn the_messages_are_those_of_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["spfs.proto"], [root.join("proto")]).unwrap();
    let out = TempDir::new().unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let generated = fs::read_to_string(out.path().join("spfs.rs")).unwrap();
    let committed = root.join("src/grpc/generated.rs");
    if std::env::var_os("FARSEEK_GENERATE").is_some() {
        fs::write(&committed, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&committed).unwrap() == generated,
        "{} is out of date: run this test with FARSEEK_GENERATE=1",
        committed.display()
    );
}
