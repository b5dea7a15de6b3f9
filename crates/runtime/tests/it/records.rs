//! Records in a repository: as SPFS keeps them, each name once, and no longer than they are used.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use chrono::Utc;
use farseek_object::{
    Annotation, AnnotationValue, Blob, Digest, DirectoryBuilder, EntryName, Header, Layer,
    MergeOptions, NewEntry, Object, Platform, S_IFREG, TagName,
};
use farseek_reader::ReaderOptions;
use farseek_runtime::record::{
    Host, Keeper, Kind, ProcessId, PruneOptions, Reference, RuntimeRecord, Runtimes, Verdict,
};
use farseek_runtime::{MountRequest, RuntimeError, mount};
use farseek_store::{
    FsOptions, FsRepository, MemoryRepository, Pinned, PutOptions, Repository, RepositoryExt as _,
    StoreError,
};
use farseek_testkit::{Need, need};
use futures::{StreamExt as _, future};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::fixture::{CONTENT, repository, spec};

fn local() -> (TempDir, Arc<dyn Repository>) {
    let directory = tempfile::tempdir().unwrap();
    let local = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    (directory, Arc::new(local))
}

fn in_repository(repository: &Arc<dyn Repository>) -> Runtimes {
    Runtimes::new(Arc::clone(repository), "user@host", Header::default())
}

pub(crate) fn record(name: &str) -> RuntimeRecord {
    let (host, me) = (Host::current().unwrap(), ProcessId::current().unwrap());
    RuntimeRecord::new(Some(name), Kind::Mount, "user", host, me)
}

/// A process that has been and is no more.
fn ended() -> ProcessId {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    child.wait().unwrap();
    ProcessId { pid, start: 1 }
}

fn ended_record(name: &str) -> RuntimeRecord {
    let mut record = record(name);
    record.farseek.as_mut().unwrap().holders = vec![ended()];
    record
}

async fn versions(repository: &dyn Repository, folder: &str, name: &str) -> usize {
    let tag: TagName = format!("spfs/runtimes/{folder}/{name}").parse().unwrap();
    match repository.read_tag(&tag).await {
        Ok(stream) => stream.len(),
        Err(StoreError::UnknownTag { .. }) => 0,
        Err(error) => panic!("{error}"),
    }
}

/// Everything that SPFS's clean finds attached: what is reached from tags, as far as it is there
/// (FORMAT.md section 10).
async fn attached(repository: &dyn Repository) -> HashSet<Digest> {
    let mut attached = HashSet::new();
    let mut pending = Vec::new();
    for name in repository.walk_tags("").await.unwrap() {
        let stream = repository.read_tag(&name).await.unwrap();
        pending.extend(stream.newest_first().map(|tag| tag.target));
    }
    while let Some(digest) = pending.pop() {
        if !attached.insert(digest) {
            continue;
        }
        match repository.get_object(&digest).await {
            Ok(object) => pending.extend(object.children()),
            Err(error) => assert!(error.is_not_found(), "{error}"),
        }
    }
    attached
}

#[tokio::test]
async fn a_record_reaches_every_payload_of_its_environment_and_no_longer_than_it_lives() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let remote = repository().await;
    let environment = remote
        .resolve_environment(&spec("tools/one"))
        .await
        .unwrap();
    let payload = Digest::of(CONTENT);
    let reference = Reference::take(runtimes.clone(), record("a"), &environment)
        .await
        .unwrap();
    let reached = attached(&*local).await;
    assert!(reached.contains(&payload));
    assert!(
        environment
            .stack()
            .iter()
            .all(|digest| reached.contains(digest))
    );
    assert!(
        !local.has_object(&payload).await.unwrap(),
        "payloads are not copied"
    );
    let found = runtimes.load("a").await.unwrap();
    assert_eq!(found.status.stack, environment.stack());
    reference.release().await;
    assert_eq!(attached(&*local).await, HashSet::new());
    let missing = runtimes.load("a").await.unwrap_err();
    assert!(
        matches!(missing, RuntimeError::UnknownRuntime { .. }),
        "{missing}"
    );
}

/// A stack of a platform in a platform over layers with annotations in blobs, and a bare manifest.
async fn nested(repository: &dyn Repository) -> (Vec<Digest>, BTreeSet<Digest>) {
    let put = |object: Object| async move {
        repository
            .put_object(&object, PutOptions::default())
            .await
            .unwrap()
    };
    let mut blobs = BTreeSet::new();
    let mut manifests = Vec::new();
    for content in ["one", "two", "three"] {
        let object = Digest::of(content.as_bytes());
        let mut builder = DirectoryBuilder::new();
        let (mode, size) = (S_IFREG | 0o644, 3);
        let blob = NewEntry::Blob { object, mode, size };
        builder.insert(EntryName::new(content).unwrap(), blob);
        let manifest = builder.into_manifest(Header::default()).unwrap();
        manifests.push(put(Object::Manifest(manifest)).await);
        blobs.insert(object);
    }
    let note = Digest::of(b"a long note");
    blobs.insert(note);
    let annotation = Annotation {
        key: "note".into(),
        value: AnnotationValue::Blob(note),
    };
    let layer = Layer::new(Header::default(), Some(manifests[0]), vec![annotation]).unwrap();
    let layer = put(Object::Layer(layer)).await;
    let platform = |layers| {
        Object::Platform(Platform {
            header: Header::default(),
            layers,
        })
    };
    let inner = put(platform(vec![layer, manifests[1]])).await;
    let outer = put(platform(vec![inner, layer])).await;
    (vec![outer, manifests[2]], blobs)
}

#[tokio::test]
async fn every_kind_of_stack_is_kept_children_first() {
    let remote = MemoryRepository::new();
    let (stack, blobs) = nested(&remote).await;
    let text: Vec<String> = stack.iter().map(Digest::to_string).collect();
    let environment = remote
        .resolve_environment(&spec(&text.join("+")))
        .await
        .unwrap();
    let order = environment.children_first();
    for (at, (_, object)) in order.iter().enumerate() {
        let later: Vec<Digest> = order[at..].iter().map(|(digest, _)| **digest).collect();
        assert!(object.children().iter().all(|child| !later.contains(child)));
    }
    assert_eq!(order.len(), 6, "three manifests, a layer, two platforms");
    let (_directory, local) = local();
    let reference = Reference::take(in_repository(&local), record("a"), &environment)
        .await
        .unwrap();
    let reached = attached(&*local).await;
    assert!(blobs.iter().all(|blob| reached.contains(blob)));
    let top_down: Vec<Digest> = stack.into_iter().rev().collect();
    let found = in_repository(&local).load("a").await.unwrap();
    assert_eq!(found.status.stack, top_down);
    reference.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_name_one_has_it() {
    let (_directory, local) = local();
    for round in 0..10 {
        let name = format!("wanted-{round}");
        let tries = (0..8).map(|number| {
            // Each with a repository of its own, as processes have.
            let runtimes = in_repository(&local);
            let mut record = record(&name);
            record.status.command = vec![number.to_string()];
            tokio::spawn(async move { (number, runtimes.create(&record).await) })
        });
        let tries = future::join_all(tries).await;
        let mut winners = Vec::new();
        for tried in tries {
            match tried.unwrap() {
                (number, Ok(())) => winners.push(number.to_string()),
                (_, Err(RuntimeError::RuntimeExists { .. })) => {}
                (_, Err(error)) => panic!("{error}"),
            }
        }
        let found = in_repository(&local).load(&name).await.unwrap();
        assert_eq!(found.status.command, winners);
        for folder in ["meta", "data"] {
            assert_eq!(versions(&*local, folder, &name).await, 1);
        }
    }
}

#[tokio::test]
async fn a_record_that_is_saved_often_does_not_grow() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let mut saved = record("a");
    runtimes.create(&saved).await.unwrap();
    for number in 0..20_u8 {
        saved.status.command = vec![number.to_string()];
        saved.status.stack = vec![Digest::of(&[number])];
        runtimes.save(&saved).await.unwrap();
        assert_eq!(runtimes.load("a").await.unwrap(), saved);
        for folder in ["meta", "data"] {
            assert_eq!(versions(&*local, folder, "a").await, 1);
        }
    }
    let reached = attached(&*local).await;
    assert!(reached.contains(&Digest::of(&[19])) && !reached.contains(&Digest::of(&[18])));
}

#[tokio::test]
async fn a_record_that_was_made_anew_is_not_removed_for_the_old_one() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    runtimes.create(&record("a")).await.unwrap();
    let old = runtimes.find("a").await.unwrap();
    assert!(runtimes.remove("a").await.unwrap());
    runtimes.create(&record("a")).await.unwrap();
    let new = runtimes.load("a").await.unwrap();
    assert!(!runtimes.remove_listed(&old).await.unwrap());
    assert_eq!(runtimes.load("a").await.unwrap(), new);
    assert_eq!(versions(&*local, "data", "a").await, 1);
}

#[tokio::test]
async fn names_are_checked_before_anything_is_written() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    for name in ["", "..", "a/b", "a b", "über", "x~1"] {
        let error = runtimes.create(&record(name)).await.unwrap_err();
        assert!(
            matches!(error, RuntimeError::RuntimeName { .. }),
            "{name}: {error}"
        );
    }
    assert_eq!(local.walk_tags("").await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_stays() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let broken: TagName = "spfs/runtimes/meta/broken".parse().unwrap();
    let missing = Digest::of(b"nowhere");
    local
        .push_tag(&broken, &missing, "user@host")
        .await
        .unwrap();
    runtimes.create(&ended_record("ended")).await.unwrap();
    let found = runtimes.list().await.unwrap();
    let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["broken", "ended"]);
    assert!(found[0].record.is_err());
    let here = Host::current().unwrap();
    let pruned = runtimes
        .prune(&here, &PruneOptions::default())
        .await
        .unwrap();
    assert_eq!(pruned.removed, ["ended"]);
    assert_eq!(pruned.failed[0].0, "broken");
    assert_eq!(versions(&*local, "meta", "broken").await, 1);
    assert!(runtimes.remove("broken").await.unwrap());
}

#[tokio::test]
async fn only_ended_records_of_the_user_are_pruned() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let here = Host::current().unwrap();
    let mut elsewhere = ended_record("elsewhere");
    let host = &mut elsewhere.farseek.as_mut().unwrap().host;
    (host.boot, host.name) = ("another".into(), "far-away".into());
    let mut another = ended_record("another");
    another.author.user_name = "somebody".into();
    let mut durable = ended_record("durable");
    durable.config.durable = true;
    let all = [
        record("alive"),
        ended_record("ended"),
        elsewhere,
        another,
        durable,
    ];
    for record in &all {
        runtimes.create(record).await.unwrap();
    }
    let options = PruneOptions {
        user: Some("user".into()),
        ..PruneOptions::default()
    };
    let pruned = runtimes.prune(&here, &options).await.unwrap();
    assert_eq!(pruned.removed, ["ended"]);
    let kept = |name: &str, verdict| (name.to_owned(), verdict);
    assert_eq!(
        pruned.kept,
        [
            kept("alive", Verdict::Alive),
            kept("another", Verdict::Ended),
            kept("durable", Verdict::Ended),
            kept("elsewhere", Verdict::Unknown),
        ]
    );
    let durable = runtimes.load("durable").await.unwrap();
    assert_eq!(
        (durable.status.owner, durable.status.running),
        (None, false)
    );
    let pruned = runtimes
        .prune(&here, &PruneOptions::default())
        .await
        .unwrap();
    assert_eq!(pruned.removed, ["another"]);
}

#[tokio::test]
async fn the_directory_of_an_ended_runtime_goes_with_it_and_no_other() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    for path in ["mine/upper/deep", "mine/work/work", "theirs"] {
        std::fs::create_dir_all(root.path().join(path)).unwrap();
    }
    // Of a runtime that is in another repository.
    let _theirs = claim(&root.path().join("theirs"));
    std::fs::write(outside.path().join("file"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("mine/upper/link")).unwrap();
    let at = |name: &str, directory: &Path| {
        let mut record = ended_record(name);
        record.config.runtime_dir = Some(directory.to_owned());
        record
    };
    runtimes
        .create(&at("mine", &root.path().join("mine")))
        .await
        .unwrap();
    // A record that names what is not its own.
    runtimes
        .create(&at("liar", &root.path().join("theirs")))
        .await
        .unwrap();
    runtimes.create(&at("rover", outside.path())).await.unwrap();
    let here = Host::current().unwrap();
    let options = |records_only| PruneOptions {
        root: Some(root.path().to_owned()),
        records_only,
        ..PruneOptions::default()
    };
    let pruned = runtimes.prune(&here, &options(true)).await.unwrap();
    assert_eq!(
        pruned.removed,
        ["liar", "rover"],
        "what has left something waits"
    );
    let pruned = runtimes.prune(&here, &options(false)).await.unwrap();
    assert_eq!(pruned.removed, ["mine"]);
    assert!(!root.path().join("mine").exists());
    assert!(root.path().join("theirs").exists());
    assert!(outside.path().join("file").exists());
}

/// Writes a record under a name that is not its own, as anybody can who may write the repository.
async fn store_as(repository: &Arc<dyn Repository>, name: &str, record: &RuntimeRecord) {
    let bytes = serde_json::to_vec(record).unwrap();
    let size = bytes.len() as u64;
    let body = futures::stream::iter([Ok(bytes.into())]).boxed();
    let written = repository.put_payload(body, PutOptions::default()).await;
    let blob = Object::Blob(Blob {
        header: Header::default(),
        payload: written.unwrap().0,
        size,
    });
    let blob = repository.put_object(&blob, PutOptions::default()).await;
    let tag: TagName = format!("spfs/runtimes/meta/{name}").parse().unwrap();
    let pushed = repository.push_tag(&tag, &blob.unwrap(), "user@host").await;
    pushed.unwrap();
}

#[tokio::test]
async fn a_record_of_another_name_takes_nothing_away() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("farseek");
    std::fs::create_dir_all(root.join("alive")).unwrap();
    let mut alive = record("alive");
    alive.config.runtime_dir = Some(root.join("alive"));
    runtimes.create(&alive).await.unwrap();
    let liars = [
        ("a", ".."),
        ("b", "."),
        ("c", ""),
        ("d", "alive"),
        ("e", "x/.."),
    ];
    for (name, says) in liars {
        let mut liar = ended_record(says);
        liar.config.runtime_dir = Some(root.join(says));
        store_as(&local, name, &liar).await;
    }
    let here = Host::current().unwrap();
    let options = PruneOptions {
        root: Some(root.clone()),
        ..PruneOptions::default()
    };
    let pruned = runtimes.prune(&here, &options).await.unwrap();
    assert_eq!(pruned.removed, [] as [&str; 0]);
    assert_eq!(pruned.failed.len(), liars.len());
    // Whoever has the record in hand is not led astray either.
    for (_, says) in liars.into_iter().filter(|(_, says)| *says != "alive") {
        let mut liar = ended_record(says);
        liar.config.runtime_dir = Some(root.join(says));
        let taken = runtimes.take_leftovers_of(&here, &options, &liar).await;
        assert!(taken.unwrap(), "{says}");
    }
    assert!(root.join("alive").is_dir());
    assert_eq!(runtimes.load("alive").await.unwrap().name, "alive");
}

#[tokio::test]
async fn nothing_is_taken_away_where_others_may_write() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let root = tempfile::tempdir().unwrap();
    let mine = root.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(root.path(), mode).unwrap();
    let mut record = ended_record("mine");
    record.config.runtime_dir = Some(mine.clone());
    runtimes.create(&record).await.unwrap();
    let options = PruneOptions {
        root: Some(root.path().to_owned()),
        ..PruneOptions::default()
    };
    let here = Host::current().unwrap();
    let pruned = runtimes.prune(&here, &options).await.unwrap();
    assert_eq!(pruned.removed, ["mine"]);
    assert!(mine.is_dir());
}

/// A root of runtimes' directories with these in it, that is the user's alone.
fn root_with(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::create_dir(root.path().join(name)).unwrap();
        std::fs::write(root.path().join(name).join("control"), "").unwrap();
    }
    root
}

/// As the host of a runtime claims its directory.
fn claim(directory: &std::path::Path) -> Flock<std::fs::File> {
    let directory = std::fs::File::open(directory).unwrap();
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).unwrap()
}

#[tokio::test]
async fn a_live_runtime_keeps_its_directory_whatever_is_written_into_its_record() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let root = root_with(&["mine"]);
    let mine = root.path().join("mine");
    let mut record = ended_record("mine");
    record.config.runtime_dir = Some(mine.clone());
    runtimes.create(&record).await.unwrap();
    let options = PruneOptions {
        root: Some(root.path().to_owned()),
        ..PruneOptions::default()
    };
    let here = Host::current().unwrap();
    let claim = claim(&mine);
    let pruned = runtimes.prune(&here, &options).await.unwrap();
    assert_eq!(pruned.kept, [("mine".to_owned(), Verdict::Alive)]);
    let taken = runtimes.take_leftovers_of(&here, &options, &record).await;
    assert!(!taken.unwrap());
    assert!(mine.join("control").exists());
    drop(claim);
    let pruned = runtimes.prune(&here, &options).await.unwrap();
    assert_eq!(pruned.removed, ["mine"]);
    assert!(!mine.exists());
}

#[tokio::test]
async fn a_directory_without_a_record_goes_unless_somebody_has_it() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let root = root_with(&["alive", "left", "recorded"]);
    let mut recorded = record("recorded");
    recorded.config.runtime_dir = Some(root.path().join("recorded"));
    runtimes.create(&recorded).await.unwrap();
    let _claim = claim(&root.path().join("alive"));
    let options = |records_only, pretend| PruneOptions {
        root: Some(root.path().to_owned()),
        records_only,
        pretend,
        ..PruneOptions::default()
    };
    let here = Host::current().unwrap();
    let there = || {
        let entries = std::fs::read_dir(root.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for (records_only, pretend) in [(true, false), (false, true)] {
        let options = options(records_only, pretend);
        runtimes.prune(&here, &options).await.unwrap();
        assert_eq!(there(), ["alive", "left", "recorded"]);
    }
    let pruned = runtimes.prune(&here, &options(false, false)).await.unwrap();
    assert_eq!(pruned.directories, ["left"]);
    assert_eq!(there(), ["alive", "recorded"]);
}

#[tokio::test]
async fn who_saves_a_record_holds_the_repository() {
    let (directory, local) = local();
    let runtimes = in_repository(&local);
    let holds = directory.path().join("holds");
    runtimes.create(&record("a")).await.unwrap();
    std::fs::remove_dir_all(&holds).ok();
    runtimes.save(&record("a")).await.unwrap();
    assert_eq!(
        std::fs::read_dir(&holds).unwrap().count(),
        0,
        "and no longer"
    );
}

/// Mounts from a remote with a record in `local`.
fn request(runtimes: Runtimes, at: &Path) -> MountRequest {
    MountRequest {
        keeper: Some(Keeper {
            runtimes,
            user: "user".into(),
        }),
        ..MountRequest::new(spec("tools/one"), at)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_fails_leaves_no_record() {
    let (_directory, local) = local();
    let runtimes = in_repository(&local);
    let at = tempfile::tempdir().unwrap();
    let request = MountRequest {
        merge: MergeOptions { max_nodes: 1 },
        ..request(runtimes.clone(), at.path())
    };
    let error = mount(repository().await, request).await.err().unwrap();
    assert!(matches!(error, RuntimeError::Merge(_)), "{error}");
    assert!(runtimes.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mount_promotes_is_attached_until_it_ends() {
    if !need("what a mount promotes", &[Need::Fuse]) {
        return;
    }
    let (directory, local) = local();
    let runtimes = in_repository(&local);
    let at = tempfile::tempdir().unwrap();
    let options = ReaderOptions {
        local: Some(Arc::clone(&local)),
        ..ReaderOptions::default()
    };
    let request = MountRequest {
        reader: options,
        ..request(runtimes.clone(), at.path())
    };
    let mut mounted = mount(repository().await, request).await.unwrap();
    let found = runtimes.list().await.unwrap();
    let [found] = &found[..] else {
        panic!("one mount has one record: {found:?}")
    };
    let found = found.record.as_ref().unwrap();
    let origin = found.farseek.as_ref().unwrap();
    assert_eq!(
        origin.mountpoint.as_deref(),
        Some(mounted.mount().mountpoint())
    );
    assert_eq!(origin.reference.as_deref(), Some("tools/one"));
    assert_eq!(Host::current().unwrap().judge(found), Verdict::Alive);
    let file = at.path().join("file");
    let read = tokio::task::spawn_blocking(move || std::fs::read(file).unwrap());
    assert_eq!(read.await.unwrap(), CONTENT);
    mounted.vfs().reader().settle().await;
    let payload = Digest::of(CONTENT);
    assert_eq!(
        local.payload_size(&payload).await.unwrap(),
        Some(CONTENT.len() as u64)
    );
    assert!(attached(&*local).await.contains(&payload));
    let reference = mounted.take_reference().unwrap();
    tokio::task::spawn_blocking(move || drop(mounted))
        .await
        .unwrap();
    reference.release().await;
    assert!(!attached(&*local).await.contains(&payload));
    drop(directory);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_record_it_is_mounted_and_nothing_becomes_local() {
    if !need("a mount without a record", &[Need::Fuse]) {
        return;
    }
    let (_directory, local) = local();
    // One that can hold payloads, and no records.
    let refusing = Pinned::new(Arc::clone(&local), Utc::now());
    let runtimes = in_repository(&(Arc::new(refusing) as Arc<dyn Repository>));
    let at = tempfile::tempdir().unwrap();
    let request = MountRequest {
        reader: ReaderOptions {
            local: Some(Arc::clone(&local)),
            ..ReaderOptions::default()
        },
        ..request(runtimes, at.path())
    };
    let mut mounted = mount(repository().await, request).await.unwrap();
    assert!(mounted.take_reference().is_none());
    let file = at.path().join("file");
    let read = tokio::task::spawn_blocking(move || std::fs::read(file).unwrap());
    assert_eq!(read.await.unwrap(), CONTENT);
    mounted.vfs().reader().settle().await;
    assert_eq!(
        local.payload_size(&Digest::of(CONTENT)).await.unwrap(),
        None
    );
    assert_eq!(local.walk_tags("").await.unwrap(), []);
    tokio::task::spawn_blocking(move || drop(mounted))
        .await
        .unwrap();
}
