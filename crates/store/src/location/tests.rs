use super::*;

fn parse(text: &str) -> Location {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn reason(text: &str) -> String {
    text.parse::<Location>().expect_err(text).to_string()
}

#[test]
fn directories_by_path_and_by_url() {
    for (text, path) in [
        ("/a/b", "/a/b"),
        ("./a", "./a"),
        (".", "."),
        ("a/b", "a/b"),
        ("/a b%20c", "/a b%20c"),
        ("/what?/x", "/what?/x"),
        ("/a:b", "/a:b"),
        ("file:/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("FILE:/a", "/a"),
        ("file://localhost/a", "/a"),
        ("file:a/b", "a/b"),
        ("file:/a%20b", "/a b"),
        ("file:/100%", "/100%"),
        ("file:/%zz%4", "/%zz%4"),
        ("file:/%E6%97%A5", "/\u{65e5}"),
    ] {
        assert_eq!(parse(text), Location::directory(path), "{text}");
    }
}

#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let path = parse("file:/%FF");
    assert_eq!(
        path.path().expect("a path").as_os_str().as_bytes(),
        b"/\xff"
    );
}

#[test]
fn parameters() {
    let namespace: TagNamespace = "vfx".parse().expect("a namespace");
    let made = Location::directory("/a b").with_create(true);
    assert_eq!(parse("file:/a%20b?create=true&lazy=false"), made);
    assert_eq!(parse("/a b?create=true"), made);
    let spaced = Location::directory("/a").with_tag_namespace(Some(namespace.clone()));
    assert_eq!(parse("file:/a?tag_namespace=vfx"), spaced);
    let web = parse("https://host/a?tag_namespace=vfx");
    assert_eq!(web.tag_namespace(), Some(&namespace));
    assert_eq!(web.to_string(), "https://host/a");
    assert!(web.path().is_none());
    assert!(reason("file:/a?tag_namespace=a/b").contains("single name"));
}

#[test]
fn what_is_wrong_is_said() {
    for (text, expected) in [
        ("", "it is empty"),
        ("origin", "write ./origin for a directory"),
        ("file:", "it has no path"),
        ("file:/a%00b", "NUL"),
        (
            "file://host/a",
            "what follows file:// is taken for a host: write file:/host/a",
        ),
        ("file:/a?creat=true", "did you mean 'create'?"),
        ("file:/a?tagnamespace=x", "did you mean 'tag_namespace'?"),
        (
            "file:/a?something=x",
            "there are create, lazy, tag_namespace",
        ),
        ("file:/a?create=yes", "create is true or false, not 'yes'"),
        ("file:/a?when=~1d", "not supported yet"),
        ("http://", "empty host"),
        ("http://h/a?create=true", "cannot be created"),
        ("tar:/a.tar", "tar repositories are not supported yet"),
        ("grpc://", "it names no host"),
        ("grpc://h:1/path", "a gRPC server has no path"),
        ("grpc://u:secret@h:1", "token_file="),
        ("grpc://h:1?create=true", "cannot be created"),
        ("grpc://h:1?timeout_ms=1s", "timeout_ms is a number above 0"),
        ("grpc://h:1?timeout_ms=0", "timeout_ms is a number above 0"),
        ("grpc://h:1?token_file=", "token_file names no file"),
        (
            "grpc://h:1?max_decode_message_size_byte=1",
            "did you mean 'max_decode_message_size_bytes'?",
        ),
        ("http://h:1?timeout_ms=1", "unknown parameter 'timeout_ms'"),
        (
            "proxy:?primary=a",
            "proxy repositories are not supported yet",
        ),
        (
            "fallback:?primary=a",
            "fallback repositories are not supported yet",
        ),
        (
            "s3://bucket/x",
            "object-store repositories are not supported yet",
        ),
        ("ftp://h/x", "no kind of repository called 'ftp'"),
    ] {
        let said = reason(text);
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn grpc_servers() {
    for text in ["grpc://h:1", "http2://h:1", "grpcs://h:1"] {
        assert_eq!(parse(text).to_string(), text);
        assert!(parse(text).path().is_none());
    }
    let full = parse(
        "grpc://h:1?lazy=true&timeout_ms=1500&max_decode_message_size_bytes=1000&\
         max_encode_message_size_bytes=2000&tag_namespace=vfx&token_file=/a%20b",
    );
    assert_eq!(full.to_string(), "grpc://h:1");
    assert_eq!(
        full.tag_namespace(),
        Some(&"vfx".parse().expect("a namespace"))
    );
    assert_ne!(full, parse("grpc://h:1?tag_namespace=vfx&lazy=true"));
}

#[tokio::test]
async fn a_token_is_read_from_its_file_and_never_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    let location = parse(&format!("grpc://127.0.0.1:1?token_file={}", path.display()));
    let missing = open(&location, &OpenOptions::default()).await;
    let missing = missing.expect_err("not there").to_string();
    assert!(missing.contains("cannot read the token in"), "{missing}");
    std::fs::write(&path, "two secrets").expect("written");
    let invalid = open(&location, &OpenOptions::default()).await;
    let invalid = format!("{:?}", invalid.expect_err("no token"));
    assert!(invalid.contains("visible ASCII") && !invalid.contains("secrets"));
    std::fs::write(&path, "secret\n").expect("written");
    let opened = open(&location, &OpenOptions::default())
        .await
        .expect("opened");
    assert!(!format!("{opened:?} {}", opened.location()).contains("secret"));
}

#[test]
fn credentials_are_never_shown() {
    assert_eq!(
        parse("http://user:secret@host/a").to_string(),
        "http://host/a"
    );
    for text in [
        "http://user:secret@host/a?x=1",
        "s3://user:secret@host",
        "x://u:secret@[::1/",
        "http:/user:secret@host:99999/x",
        "user:secret@host/",
        "file://user:secret@host/x",
    ] {
        assert!(!reason(text).contains("secret"), "{}", reason(text));
    }
}

#[tokio::test]
async fn opening_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a repository");
    let location = Location::directory(&path);
    let missing = open(&location, &OpenOptions::default())
        .await
        .expect_err("not there");
    assert!(missing.to_string().contains("a repository"), "{missing}");
    let made = open(&location.with_create(true), &OpenOptions::default())
        .await
        .expect("made");
    assert!(
        !made
            .has_object(&farseek_object::Digest::EMPTY)
            .await
            .expect("an answer")
    );
    let encoded = format!("file:{}/a%20repository", dir.path().display());
    open(&parse(&encoded), &OpenOptions::default())
        .await
        .expect("opened");
}

#[tokio::test]
async fn opening_a_remote_asks_it_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a mode");
    let url = format!("http://{}/repo", listener.local_addr().expect("an address"));
    open(&parse(&url), &OpenOptions::default())
        .await
        .expect("opened");
    let asked = listener.accept().expect_err("nobody asks");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn an_at_sign_in_a_path_is_not_a_credential() {
    for text in ["/shows/a@b/spfs", "file:/shows/a@b", "http://host/@scope/x"] {
        assert_eq!(super::parse::without_credentials(text), text);
    }
}
