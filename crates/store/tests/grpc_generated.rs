//! The messages in `src/grpc/generated.rs` and `src/grpc/generated_bulk.rs` are what `proto/*.proto`
//! give. They are committed, so that nobody needs a protobuf compiler to build; to make them again,
//! run this test with `FARSEEK_GENERATE=1`.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

#[test]
fn the_messages_are_those_of_the_proto_files() {
    for (package, committed) in [("spfs", "generated.rs"), ("farseek", "generated_bulk.rs")] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let proto = format!("{package}.proto");
        let descriptors = protox::compile([proto], [root.join("proto")]).unwrap();
        let out = TempDir::new().unwrap();
        tonic_prost_build::configure()
            .build_transport(false)
            .bytes(".farseek")
            .out_dir(out.path())
            .compile_fds(descriptors)
            .unwrap();
        let made = out.path().join(package).with_extension("rs");
        let generated = fs::read_to_string(made).unwrap();
        let committed = root.join("src/grpc").join(committed);
        if std::env::var_os("FARSEEK_GENERATE").is_some() {
            fs::write(&committed, &generated).unwrap();
        }
        assert!(
            fs::read_to_string(&committed).unwrap() == generated,
            "{} is out of date: run this test with FARSEEK_GENERATE=1",
            committed.display()
        );
    }
}
