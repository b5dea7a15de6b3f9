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
            "there are create, lazy, tag_namespace, when",
        ),
        ("file:/a?create=yes", "create is true or false, not 'yes'"),
        ("file:/a?when=1d", "'1d' is not a valid time"),
        ("http://", "empty host"),
        ("http://h/a?create=true", "cannot be created"),
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
        ("tar:", "it has no path"),
        ("tar://host/a", "write tar:/host/a"),
        ("proxy:", "it needs a primary"),
        ("proxy:?secondary[0]=/a", "it needs a primary"),
        (
            "proxy:?primary=a",
            "its primary 'a': it is neither a URL nor a path",
        ),
        (
            "fallback:?primary=/a&secondary[0]=ftp:/x",
            "its secondary 'ftp:/x': there is no kind of repository",
        ),
        ("proxy:?primary=/a&primary=/b", "two primaries"),
        (
            "proxy:?primary=/a&secondary[1]=/b&secondary[1]=/c",
            "two secondary[1]",
        ),
        (
            "proxy:?primary=/a&secondary[x]=/b",
            "not of the form secondary[0]",
        ),
        (
            "proxy:?primary=/a&secondry[0]=/b",
            "unknown parameter 'secondry[0]'",
        ),
        ("proxy:?primary=/a&create=true", "one of its members"),
        (
            "proxy:?primary=/a&include_secondary_tags=no",
            "include_secondary_tags is true or false",
        ),
        ("s3:///x", "it names no bucket"),
        ("s3://b c/x", "'b c' is not the name of a bucket"),
        ("s3://b/x/../y", "mean nothing in a bucket"),
        ("s3://b?endpoint=host:1", "endpoint is a URL"),
        ("s3://b?endpoint=http://u:p@host", "endpoint is a URL"),
        ("s3://b?path_style=yes", "path_style is true or false"),
        ("s3://b?acces_key_id=x", "did you mean 'access_key_id'"),
        ("gs://b?region=x", "unknown parameter 'region'"),
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
        "s3://b?secret_access_key=secret&what=1",
        "S3://b/x?what=1&secret_access_key=secret",
        "az://b?sas_token=secret&endpoint=secret",
        "gs://b?endpoint=http://u:secret@host",
        "x://u:secret@[::1/",
        "proxy:?primary=http://u:secret@host/x&lazy=1",
        "proxy:?primary=/a&secondary[0]=x://u:secret@host",
        "proxy:?primary=proxy:?primary=x://u:secret@host",
        "http:/user:secret@host:99999/x",
        "user:secret@host/",
        "file://user:secret@host/x",
    ] {
        assert!(!reason(text).contains("secret"), "{}", reason(text));
    }
}

#[tokio::test]
async fn a_bucket_shows_none_of_its_parameters() {
    let text = "s3://b/a%20b/?endpoint=http://127.0.0.1:1&access_key_id=hush\
                &secret_access_key=hush%2B&session_token=hush&region=r";
    let location = parse(text);
    assert_eq!(location.to_string(), "s3://b/a b");
    assert!(!format!("{location:?}").contains("hush"), "{location:?}");
    let environment = BucketEnvironment::new([("AWS_SECRET_ACCESS_KEY", "hush"), ("X", "1")]);
    let options = OpenOptions {
        environment,
        ..OpenOptions::default()
    };
    assert!(!format!("{options:?}").contains("hush"), "{options:?}");
    let opened = open(&location, &options).await.expect("nothing is asked");
    assert_eq!(opened.location(), "s3://b/a b");
    assert!(!format!("{opened:?}").contains("hush"), "{opened:?}");
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

fn members(text: &str) -> String {
    parse(text).to_string()
}

#[test]
fn chains_in_every_spelling() {
    for (text, expected) in [
        ("proxy:?primary=/a", "/a"),
        (
            "proxy:?primary=/a&secondary[1]=/c&secondary[0]=/b",
            "/a, then /b, then /c",
        ),
        (
            "fallback:?primary=tar:/a.tar&secondary%5B0%5D=http%3A%2F%2Fu%3Ap%40h%2Fx",
            "tar:/a.tar, then http://h/x",
        ),
        (
            "proxy://?secondary[]=/b&primary=/a&secondary[]=/c",
            "/a, then /b, then /c",
        ),
        (
            "proxy:?primary=/a&secondary[0]=proxy:?primary%3D/b%26secondary[0]%3D/c",
            "/a, then /b, then /c",
        ),
    ] {
        assert_eq!(members(text), expected, "{text}");
    }
}

/// Parses with names `a` to `d` configured.
fn parse_named(text: &str) -> Result<String, String> {
    let names = |name: &str| match name {
        "a" => Ok(Some("/srv/a".to_owned())),
        "b" => Ok(Some("proxy:?primary=a&secondary[0]=a".to_owned())),
        "c" => Ok(Some("proxy:?primary=d".to_owned())),
        "d" => Ok(Some("fallback:?primary=/x&secondary[0]=c".to_owned())),
        name if name.contains('/') => Ok(None),
        name => Err(format!("there is no remote '{name}'")),
    };
    let location = Location::parse_with(text, &names);
    location
        .map(|location| location.to_string())
        .map_err(|error| error.to_string())
}

#[test]
fn members_may_be_names() {
    let parsed = parse_named("proxy:?primary=b&secondary[0]=/y");
    assert_eq!(parsed.expect("parsed"), "/srv/a, then /srv/a, then /y");
    let unknown = parse_named("proxy:?primary=other").expect_err("unknown");
    assert!(unknown.contains("there is no remote 'other'"), "{unknown}");
}

#[test]
fn names_that_lead_in_a_circle_and_bottomless_chains_are_refused() {
    let circle = parse_named("proxy:?primary=c").expect_err("a circle");
    assert!(circle.contains("it leads to itself: c, d, c"), "{circle}");
    let deep = format!("{}/x", "proxy:?primary=".repeat(100_000));
    assert!(reason(&deep).contains("nested more than 16 deep"));
    let wide: String = (0..300).map(|n| format!("&secondary[{n}]=/x")).collect();
    let wide = reason(&format!("proxy:?primary=/x{wide}"));
    assert!(wide.contains("more than 256 repositories"), "{wide}");
}

#[test]
fn times() {
    for text in [
        "/a?when=~1d",
        "file:/a?when=~1d&create=true",
        "http://h/a?when=@2024-01-02",
        "tar:/a.tar?when=@2024-01-02T03:04:05+01:00",
        "proxy:?primary=/a&when=@9am",
    ] {
        assert!(parse(text).when.is_some(), "{text}");
    }
}

/// A repository in a new directory at `path` with the tag `name` on an object.
async fn with_tag(path: &std::path::Path, name: &str) -> Arc<dyn Repository> {
    let location = Location::directory(path).with_create(true);
    let repository = open(&location, &OpenOptions::default())
        .await
        .expect("made");
    let name = name.parse().expect("a name");
    let target = farseek_object::Digest::EMPTY;
    repository
        .push_tag(&name, &target, "me")
        .await
        .expect("pushed");
    repository
}

async fn tags(address: &str, options: &OpenOptions) -> Vec<String> {
    let repository = open(&parse(address), options).await.expect("opened");
    let names = crate::RepositoryExt::walk_tags(&*repository, "").await;
    names
        .expect("tags")
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[tokio::test]
async fn a_chain_is_opened_with_all_it_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    let primary = with_tag(&a, "one").await;
    let secondary = with_tag(&b, "two").await;
    let (a, b) = (a.display(), b.display());
    let options = OpenOptions::default();
    let both = format!("proxy:?primary={a}&secondary[0]={b}");
    assert_eq!(tags(&both, &options).await, ["one", "two"]);
    let alone = format!("{both}&include_secondary_tags=false");
    assert_eq!(tags(&alone, &options).await, ["one"]);
    // A secondary that is not there keeps nobody from the others; a primary does.
    let missing = format!("{both}&secondary[1]={b}-gone");
    assert_eq!(tags(&missing, &options).await, ["one", "two"]);
    let missing = parse(&format!("proxy:?primary={a}-gone&secondary[0]={b}"));
    assert!(open(&missing, &options).await.is_err());
    // A namespace is that of every member that has none of its own.
    let spaced = format!("proxy:?primary={a}%3Fcreate%3Dtrue%26tag_namespace%3Dx&secondary[0]={b}");
    assert_eq!(tags(&spaced, &options).await, ["two"]);
    assert_eq!(
        tags(&format!("{spaced}&tag_namespace=y"), &options).await,
        [""; 0]
    );
    drop((primary, secondary));
}

#[tokio::test]
async fn a_blob_without_its_payload_is_read_from_the_next() {
    use farseek_object::{Blob, Header, Object};
    use futures::{StreamExt as _, TryStreamExt as _, stream};
    let dir = tempfile::tempdir().expect("a directory");
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    let (primary, secondary) = (with_tag(&a, "one").await, with_tag(&b, "two").await);
    let body = stream::iter([Ok(bytes::Bytes::from_static(b"hello"))]).boxed();
    let put = crate::PutOptions::default();
    let (payload, size) = secondary.put_payload(body, put).await.expect("stored");
    let header = Header::default();
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    primary.put_object(&blob, put).await.expect("stored");
    for kind in ["proxy", "fallback"] {
        let address = format!(
            "{kind}:?primary={}&secondary[0]={}",
            a.display(),
            b.display()
        );
        let chain = open(&parse(&address), &OpenOptions::default())
            .await
            .expect("opened");
        assert_eq!(chain.get_object(&payload).await.expect("the blob"), blob);
        assert_eq!(chain.payload_size(&payload).await.expect("a size"), Some(5));
        let read = chain
            .get_payload(&payload, 1..3)
            .await
            .expect("the payload");
        let bytes: Vec<bytes::Bytes> = read.body.try_collect().await.expect("bytes");
        assert_eq!(bytes.concat(), b"el");
        // Reading has written nothing.
        assert_eq!(
            primary.payload_size(&payload).await.expect("an answer"),
            None
        );
    }
}

#[tokio::test]
async fn relative_times_count_from_the_moment_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a");
    drop(with_tag(&path, "one").await);
    let path = path.display();
    let now = OpenOptions::default();
    let later = OpenOptions {
        now: now.now + chrono::TimeDelta::hours(2),
        ..now.clone()
    };
    for prefix in ["file:", "proxy:?primary="] {
        let joint = if prefix.contains('?') { '&' } else { '?' };
        let address = format!("{prefix}{path}{joint}when=~1h");
        assert_eq!(tags(&address, &now).await, [""; 0], "{address}");
        assert_eq!(tags(&address, &later).await, ["one"], "{address}");
    }
}

#[tokio::test]
async fn an_archive_is_opened_by_its_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = format!("tar:{}/an%20archive.tar", dir.path().display());
    let missing = open(&parse(&address), &OpenOptions::default()).await;
    assert!(
        missing
            .expect_err("not there")
            .to_string()
            .contains("create=true")
    );
    let made = parse(&format!("{address}?create=true"));
    let made = open(&made, &OpenOptions::default()).await.expect("opened");
    let name = "one".parse().expect("a name");
    let target = farseek_object::Digest::EMPTY;
    made.push_tag(&name, &target, "me").await.expect("pushed");
    assert!(dir.path().join("an archive.tar").is_file());
    assert_eq!(tags(&address, &OpenOptions::default()).await, ["one"]);
}
