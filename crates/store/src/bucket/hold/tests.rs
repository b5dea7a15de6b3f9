//! Who may go on, and who has to stop.

use std::pin::pin;

use farseek_object::{Digest, Tag, TagName, TagStream};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;
use crate::boot_instant::{BootInstant, asleep};
use crate::bucket::BucketRepository;
use crate::clean::{CleanOptions, plan_clean, sweep};
use crate::payload::PutOptions;
use crate::repository::Repository;

/// Who takes part in what goes on in `store`: each is a process of its own.
fn exclusion(store: &Arc<InMemory>) -> Arc<Exclusion> {
    let bucket = Bucket::new(Arc::clone(store), "s3://bucket");
    let keys = Keys::new("site", None).unwrap();
    Arc::new(Exclusion::new(bucket, keys))
}

fn repository(store: &Arc<InMemory>) -> Arc<dyn Repository> {
    let bucket = BucketRepository::over(Arc::clone(store), "s3://bucket", "site", None);
    Arc::new(bucket.unwrap())
}

async fn there(store: &InMemory, folder: &str) -> usize {
    let folder = Path::from(folder);
    let listed = object_store::ObjectStore::list(store, Some(&folder));
    listed.try_collect::<Vec<_>>().await.unwrap().len()
}

fn name() -> TagName {
    "a/b".parse().unwrap()
}

async fn put(repository: &dyn Repository, text: &'static str) -> Digest {
    let body = Box::pin(futures::stream::iter([Ok(Bytes::from(text))]));
    let put = repository.put_payload(body, PutOptions::default());
    let (payload, size) = put.await.unwrap();
    let header = farseek_object::Header::default();
    let blob = farseek_object::Blob {
        header,
        payload,
        size,
    };
    let blob = farseek_object::Object::Blob(blob);
    let put = repository.put_object(&blob, PutOptions::default());
    put.await.unwrap()
}

async fn clean(repository: &Arc<dyn Repository>) {
    let options = CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    };
    let plan = plan_clean(repository, &options, &()).await.unwrap();
    sweep(repository, &plan, &options, &()).await.unwrap();
}

/// What a clean does to the key of a writer of whom it has heard nothing for ten minutes.
async fn count_no_more(store: &InMemory, folder: &str) {
    let folder = Path::from(folder);
    let listed = object_store::ObjectStore::list(store, Some(&folder));
    for meta in listed.try_collect::<Vec<_>>().await.unwrap() {
        store.delete(&meta.location).await.unwrap();
    }
}

const TOO_LONG: Duration = Duration::from_secs(HOLD_TRUSTED.as_secs() + 1);

#[tokio::test]
async fn a_writer_who_was_stopped_for_long_tags_nothing_of_what_it_found_before() {
    let store = Arc::new(InMemory::new());
    let (writer, cleaner) = (repository(&store), repository(&store));
    let hold = writer.hold().await.unwrap();
    let blob = put(&*writer, "found").await;
    hold.check().unwrap();
    asleep::sleep(2 * HOLD_COUNTS);
    count_no_more(&store, "site/holds").await;
    clean(&cleaner).await;
    assert!(!writer.has_object(&blob).await.unwrap());

    assert!(hold.check().is_err());
    // Neither by its own hold, nor by one that somebody else here has taken since.
    let another = writer.hold().await.unwrap_err().to_string();
    assert!(another.contains("run this again"), "{another}");
    let pushed = writer.push_tag(&name(), &blob, "me").await;
    assert!(pushed.unwrap_err().to_string().contains("run this again"));
    assert_eq!(there(&store, "site/versions").await, 0);
    // Nor is anything written that refers to what may have gone.
    let header = farseek_object::Header::default();
    let layers = [blob].into();
    let platform = farseek_object::Platform { header, layers };
    let platform = farseek_object::Object::Platform(platform);
    let stored = writer.put_object(&platform, PutOptions::default()).await;
    assert!(stored.unwrap_err().to_string().contains("run this again"));

    hold.release().await;
    let hold = writer.hold().await.unwrap();
    let blob = put(&*writer, "found").await;
    writer.push_tag(&name(), &blob, "me").await.unwrap();
    hold.release().await;
    assert_eq!(there(&store, "site/versions").await, 1);
    assert_eq!(there(&store, "site/holds").await, 0);
}

#[tokio::test]
async fn what_was_removed_here_is_not_said_to_be_there() {
    let repository = repository(&Arc::new(InMemory::new()));
    let blob = put(&*repository, "damaged").await;
    let hold = repository.hold().await.unwrap();
    let look = async || {
        let states = repository.bulk().unwrap().look_for_blobs(vec![blob]);
        let state = states.await.unwrap()[0];
        (state.payload.is_some(), state.object)
    };
    assert_eq!(look().await, (true, true));
    repository.remove_payload(&blob).await.unwrap();
    assert_eq!(look().await, (false, true));
    repository.remove_object(&blob).await.unwrap();
    assert_eq!(look().await, (false, false));
    hold.release().await;
}

#[tokio::test]
async fn a_hold_that_is_written_anew_too_late_stays_lost() {
    let renewed = renewed::Renewed::new(BootInstant::now());
    asleep::sleep(HOLD_TRUSTED / 2);
    assert!(renewed.renew(BootInstant::now()));
    asleep::sleep(HOLD_TRUSTED / 2 + HOLD_RENEWED);
    assert!(!renewed.is_lost());
    asleep::sleep(HOLD_TRUSTED);
    assert!(renewed.is_lost());
    assert!(!renewed.renew(BootInstant::now()));
    assert!(renewed.is_lost());
}

#[tokio::test]
async fn a_tag_that_comes_when_its_hold_was_lost_is_undone() {
    let exclusion = exclusion(&Arc::new(InMemory::new()));
    let hold = exclusion.hold(|| ()).await.unwrap();
    let mut undone = false;
    let arrives = async {
        asleep::sleep(TOO_LONG);
        Ok(())
    };
    let tagged = exclusion.tagging(arrives, async { undone = true }).await;
    assert!(tagged.is_err());
    assert!(undone);
    hold.release().await;
    // Where nothing was lost, nothing is.
    let hold = exclusion.hold(|| ()).await.unwrap();
    let undo = async { panic!("it is there") };
    exclusion.tagging(async { Ok(()) }, undo).await.unwrap();
    hold.release().await;
}

/// A bucket whose requests take so long as they are told to.
type Slow = ThrottledStore<InMemory>;

async fn versions(store: &Slow) -> usize {
    let folder = Path::from("site/versions");
    let listed = object_store::ObjectStore::list(store, Some(&folder));
    listed.try_collect::<Vec<_>>().await.unwrap().len()
}

fn in_slow(store: &Arc<Slow>) -> BucketRepository {
    BucketRepository::over(Arc::clone(store), "s3://bucket", "site", None).unwrap()
}

fn version(target: Digest, second: u32) -> Tag {
    Tag {
        name: name(),
        target,
        parent: Digest::NULL,
        user: "me@here".to_owned(),
        time: format!("2024-01-01T00:00:{second:02}Z").parse().unwrap(),
    }
}

/// The machine sleeps while the key of a version is on its way: it arrives when the hold was lost.
async fn sleeps_while_it_is_written(store: &Slow, tagging: impl Future<Output = Result<()>>) {
    let before = versions(store).await;
    let mut tagging = pin!(tagging);
    store.config_mut(|config| config.wait_put_per_call = Duration::from_millis(10));
    assert!(futures::poll!(tagging.as_mut()).is_pending());
    asleep::sleep(TOO_LONG);
    store.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
    assert_eq!(versions(store).await, before, "it is on its way");
    let error = tagging.await.unwrap_err().to_string();
    assert!(error.contains("run this again"), "{error}");
}

#[tokio::test]
async fn a_late_tag_is_undone_only_where_something_is_missing() {
    for is_missing in [false, true] {
        let store = Arc::new(ThrottledStore::new(
            InMemory::new(),
            ThrottleConfig::default(),
        ));
        let writer = in_slow(&store);
        let hold = writer.hold().await.unwrap();
        let blob = put(&writer, "a file").await;
        if is_missing {
            in_slow(&store).remove_payload(&blob).await.unwrap();
        }
        let tag = version(blob, 1);
        sleeps_while_it_is_written(&store, writer.insert_tag(&tag)).await;
        assert_eq!(versions(&store).await, usize::from(!is_missing));
        hold.release().await;
    }
}

#[tokio::test]
async fn a_late_tag_takes_none_along_that_was_there_before() {
    let store = Arc::new(ThrottledStore::new(
        InMemory::new(),
        ThrottleConfig::default(),
    ));
    let writer = in_slow(&store);
    let [old, new] = [("old", 1), ("new", 2)].map(|(text, at)| {
        let target = Digest::of(text.as_bytes());
        version(target, at)
    });
    writer.insert_tag(&old).await.unwrap();
    let hold = writer.hold().await.unwrap();
    let history = TagStream::from_oldest_first(vec![old.clone(), new]);
    sleeps_while_it_is_written(&store, writer.replace_tag(&name(), &history)).await;
    hold.release().await;
    let stream = writer.read_tag(&name()).await.unwrap();
    assert_eq!(stream, TagStream::from_oldest_first(vec![old]));
}

#[tokio::test]
async fn who_looks_whether_a_late_tag_is_sound_stops_a_clean() {
    let store = Arc::new(InMemory::new());
    let writer = exclusion(&store);
    let cleaner = Arc::into_inner(exclusion(&store)).unwrap();
    let cleaner = Arc::new(cleaner.with_patience(Duration::ZERO));
    let hold = writer.hold(|| ()).await.unwrap();
    asleep::sleep(2 * HOLD_COUNTS);
    count_no_more(&store, "site/holds").await;
    let looking = writer.apart(async {
        assert!(cleaner.begin_sweep().await.is_err());
        Ok(())
    });
    // What took so long that it was not held to the end is not known.
    looking.await.unwrap();
    let looking = writer.apart(async {
        asleep::sleep(TOO_LONG);
        Ok(())
    });
    assert!(looking.await.is_err());
    hold.release().await;
    assert_eq!(there(&store, "site/holds").await, 0);
}

#[tokio::test]
async fn a_writer_who_gave_up_a_tag_on_its_way_leaves_its_key() {
    let exclusion = exclusion(&Arc::new(InMemory::new()));
    let hold = exclusion.hold(|| ()).await.unwrap();
    {
        let mut tagging = pin!(exclusion.tagging(std::future::pending(), async {}));
        assert!(futures::poll!(tagging.as_mut()).is_pending());
    }
    hold.release().await;
    assert_eq!(exclusion.list(HOLDS).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_sweep_waits_for_those_who_write_when_it_begins() {
    let store = Arc::new(InMemory::new());
    let (writer, cleaner) = (exclusion(&store), exclusion(&store));
    let hold = writer.hold(|| ()).await.unwrap();
    let mut beginning = pin!(cleaner.begin_sweep());
    assert!(futures::poll!(beginning.as_mut()).is_pending());
    assert_eq!(writer.list(CLEANS).await.unwrap().len(), 1);
    hold.release().await;
    beginning.await.unwrap();
    cleaner.permit().await.unwrap().done();
    cleaner.end_sweep().await;
}

#[tokio::test]
async fn a_sweep_waits_for_a_minute_and_then_says_who_it_was() {
    let store = Arc::new(InMemory::new());
    let (writer, cleaner) = (exclusion(&store), exclusion(&store));
    let hold = writer.hold(|| ()).await.unwrap();
    let mut beginning = pin!(cleaner.begin_sweep());
    assert!(futures::poll!(beginning.as_mut()).is_pending());
    asleep::sleep(PATIENCE);
    let said = beginning.await.unwrap_err().to_string();
    let key = writer.list(HOLDS).await.unwrap()[0].0.to_string();
    assert!(said.contains(&key), "{said}");
    assert!(said.contains(" s ago"), "{said}");
    // Nobody waits for it any more.
    assert_eq!(writer.list(CLEANS).await.unwrap().len(), 0);
    hold.release().await;
}

#[tokio::test]
async fn who_comes_while_somebody_cleans_is_not_in_the_way() {
    let store = Arc::new(InMemory::new());
    let (writer, cleaner) = (exclusion(&store), exclusion(&store));
    cleaner.begin_sweep().await.unwrap();
    let mut holding = pin!(writer.hold(|| ()));
    assert!(futures::poll!(holding.as_mut()).is_pending());
    assert_eq!(cleaner.list(HOLDS).await.unwrap().len(), 0);
    // The sweep looks, and goes on.
    asleep::sleep(CLEAN_RENEWED);
    cleaner.permit().await.unwrap().done();
    assert!(futures::poll!(holding.as_mut()).is_pending());
    cleaner.end_sweep().await;
    holding.await.unwrap().release().await;
}

#[tokio::test]
async fn who_has_waited_for_long_makes_a_sweep_stop() {
    let store = Arc::new(InMemory::new());
    let (writer, cleaner) = (exclusion(&store), exclusion(&store));
    cleaner.begin_sweep().await.unwrap();
    let holding = async { writer.hold(|| ()).await.unwrap() };
    let sweeping = async {
        // Until its key stays.
        let mut stays = 0;
        while stays < 3 {
            stays = match cleaner.list(HOLDS).await.unwrap().is_empty() {
                true => 0,
                false => stays + 1,
            };
            asleep::sleep(Duration::from_secs(1));
            if stays == 0 {
                cleaner.permit().await.unwrap().done();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // A look is due.
        asleep::sleep(CLEAN_RENEWED);
        let mut permit = pin!(cleaner.permit());
        assert!(futures::poll!(permit.as_mut()).is_pending());
        asleep::sleep(Duration::from_secs(5));
        permit.await.unwrap_err().to_string()
    };
    let (hold, said) = futures::future::join(holding, sweeping).await;
    assert!(said.contains("somebody is writing"), "{said}");
    hold.release().await;
}

#[tokio::test]
async fn who_holds_it_already_waits_for_no_cleaner() {
    let store = Arc::new(InMemory::new());
    let (writer, cleaner) = (exclusion(&store), exclusion(&store));
    asleep::sleep(Duration::from_secs(24 * 3600));
    let old = writer.hold(|| ()).await.unwrap();
    let mut beginning = pin!(cleaner.begin_sweep());
    assert!(futures::poll!(beginning.as_mut()).is_pending());
    let same = writer.hold(|| panic!("what was found is there")).await;
    same.unwrap().release().await;
    assert_eq!(writer.list(HOLDS).await.unwrap().len(), 1);
    writer.taken_before(Duration::from_secs(3600));
    // Who comes later has a key of its own, and the old one ends by itself.
    let new = writer.hold(|| panic!("what was found is there")).await;
    assert_eq!(writer.list(HOLDS).await.unwrap().len(), 2);
    old.release().await;
    assert_eq!(writer.list(HOLDS).await.unwrap().len(), 1);
    new.unwrap().release().await;
    beginning.await.unwrap();
    cleaner.end_sweep().await;
}

#[tokio::test]
async fn nothing_is_sent_for_a_removal_that_is_too_late() {
    let exclusion = exclusion(&Arc::new(InMemory::new()));
    exclusion.begin_sweep().await.unwrap();
    let permit = exclusion.permit().await.unwrap();
    asleep::sleep(REMOVAL_MAX);
    assert!(permit.is_current());
    asleep::sleep(Duration::from_secs(1));
    assert!(!permit.is_current());
}

#[tokio::test]
async fn tags_are_pruned_while_nobody_writes() {
    let store = Arc::new(InMemory::new());
    let (writer, cleaner) = (exclusion(&store), exclusion(&store));
    assert!(cleaner.permit_in_sweep().await.unwrap().is_none());
    cleaner.begin_sweep().await.unwrap();
    cleaner.permit_in_sweep().await.unwrap().unwrap().done();
    asleep::sleep(CLEAN_TRUSTED + LOOKED);
    assert!(cleaner.permit_in_sweep().await.is_err());
    cleaner.end_sweep().await;
    writer.hold(|| ()).await.unwrap().release().await;
}

#[tokio::test]
async fn a_sweep_does_not_end_before_its_removals() {
    let exclusion = exclusion(&Arc::new(InMemory::new()));
    exclusion.begin_sweep().await.unwrap();
    let permit = exclusion.permit().await.unwrap();
    let mut ending = pin!(exclusion.end_sweep());
    assert!(futures::poll!(ending.as_mut()).is_pending());
    assert_eq!(exclusion.list(CLEANS).await.unwrap().len(), 1);
    permit.done();
    ending.await;
    assert_eq!(exclusion.list(CLEANS).await.unwrap().len(), 0);
    // One that was given up may be yet to happen.
    exclusion.begin_sweep().await.unwrap();
    drop(exclusion.permit().await.unwrap());
    exclusion.end_sweep().await;
    assert_eq!(exclusion.list(CLEANS).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_sweep_that_was_stopped_removes_nothing_until_it_is_begun_again() {
    let exclusion = exclusion(&Arc::new(InMemory::new()));
    exclusion.begin_sweep().await.unwrap();
    exclusion.permit().await.unwrap().done();
    let mut is_new = false;
    let hold = exclusion.hold(|| is_new = true).await.unwrap();
    assert!(is_new);
    assert!(exclusion.permit().await.is_err());
    hold.release().await;
    assert!(exclusion.permit().await.is_err());
    exclusion.begin_sweep().await.unwrap();
    exclusion.permit().await.unwrap().done();
}

#[test]
fn whoever_stops_is_out_of_the_way_before_it_counts_no_more() {
    // What is removed last, and what is on its way then, is gone before a writer begins.
    assert!(CLEAN_TRUSTED + REMOVAL_MAX < CLEAN_COUNTS);
    assert!(HOLD_TRUSTED + HOLD_RENEWED < HOLD_COUNTS);
    let now = SystemTime::now();
    let minute = Duration::from_secs(60);
    assert!(is_within(now, now, minute) && is_within(now + minute, now, minute));
    assert!(!is_within(now - minute, now, minute));
}
