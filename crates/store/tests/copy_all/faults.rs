//! Whatever fails, what is visible is whole, and running again completes.

use std::sync::Arc;

use farseek_store::{CopyOptions, StoreError, copy};

use crate::graph::{PAYLOADS, contents, digest, fill};
use crate::watched::{Faults, Spoil, Watched};
use crate::{checked, copy_missing, fs, items, memory};

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_any_call_leaves_a_whole_repository() {
    fail_everywhere(CopyOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_in_batches_of_every_size() {
    for batch_items in 1..5 {
        let options = CopyOptions {
            batch_items,
            payloads: 2,
            ..CopyOptions::default()
        };
        fail_everywhere(options).await;
    }
    let one_byte = CopyOptions {
        batch_bytes: 1,
        ..CopyOptions::default()
    };
    fail_everywhere(one_byte).await;
}

/// Fails at the first call, then at the second, and so on.
async fn fail_everywhere(options: CopyOptions) {
    let source = memory();
    fill(&*source).await;
    let all = contents(&*source).await;
    let mut failures = 0;
    // Until a run is through before the call that was to fail.
    for fail_at in 1..1000 {
        let destination = memory();
        let faults = Faults::at(fail_at);
        let from = Watched::failing(source.clone(), faults.clone());
        let to = Watched::failing(destination.clone(), faults.clone());
        let (wanted, nobody) = (items("org/env+layer"), Arc::new(()));
        let copied = copy(from, to.clone(), &wanted, options, nobody).await;
        assert_eq!(to.violations(), Vec::<String>::new());
        let report = checked(destination.clone()).await;
        assert_eq!(report.problems, [], "after call {fail_at}");
        if faults.calls() < fail_at {
            copied.unwrap();
            break;
        }
        let error = copied.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        failures += 1;
        let has_tags = destination
            .read_tag(&crate::graph::name("layer"))
            .await
            .is_ok();
        let again = copy_missing(source.clone(), destination.clone(), "org/env+layer").await;
        again.unwrap();
        assert_eq!(contents(&*destination).await, all, "after call {fail_at}");
        assert!(!has_tags || report.objects == all.0.len() as u64);
    }
    assert!(failures > 40, "{failures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_payload_is_named_and_kept_out() {
    for spoil in [
        Spoil::Flip,
        Spoil::Shorten,
        Spoil::Lengthen,
        Spoil::BeginLate,
    ] {
        let from = Watched::new(memory());
        fill(&*from).await;
        let wrong = digest("shared");
        from.spoil(wrong, spoil);
        let (_directory, on_disk) = fs();
        for to in [memory(), on_disk] {
            let error = copy_missing(from.clone(), to.clone(), "org/env")
                .await
                .unwrap_err();
            let told = error.to_string();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{told}");
            assert!(told.contains(&wrong.to_string()), "{told}");
            assert!(told.contains("memory:"), "{told}");
            assert_eq!(to.payload_size(&wrong).await.unwrap(), None);
            let (objects, payloads) = contents(&*to).await;
            assert!(!objects.contains_key(&wrong));
            // Whatever else has come stays, and is what it is named.
            assert!(
                payloads
                    .keys()
                    .all(|known| PAYLOADS.map(digest).contains(known))
            );
            assert!(to.read_tag(&crate::graph::name("org/env")).await.is_err());
            assert_eq!(checked(to).await.problems, []);
        }
    }
}

#[tokio::test]
async fn a_payload_that_breaks_off_is_resumed_where_it_was() {
    let (from, to) = (Watched::new(memory()), memory());
    fill(&*from).await;
    let broken = digest("a long note");
    from.spoil(broken, Spoil::BreakOff);
    copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    let calls = from.calls();
    let asked: Vec<_> = calls
        .iter()
        .filter_map(|call| call.strip_prefix(&format!("get_payload {broken} ")))
        .collect();
    assert_eq!(asked, ["0", "5"], "half of it was there");
    assert_eq!(to.payload_size(&broken).await.unwrap(), Some(11));
    assert_eq!(checked(to).await.problems, []);
}

#[tokio::test]
async fn a_source_that_sends_all_again_is_read_on_from_where_it_was() {
    let (from, to) = (Watched::new(memory()), memory());
    fill(&*from).await;
    from.ignore_ranges();
    from.spoil(digest("a long note"), Spoil::BreakOff);
    copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    assert_eq!(from.counts()["get_payload"], PAYLOADS.len() + 1);
    assert_eq!(contents(&*to).await, contents(&*from).await);
}

#[tokio::test]
async fn what_the_source_lacks_is_named() {
    let lost = digest("two");
    let from = memory();
    let graph = fill(&*from).await;
    from.remove_payload(&lost).await.unwrap();
    let to = memory();
    let error = copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), format!("memory: has no payload {lost}"));
    assert_eq!(checked(to.clone()).await.problems, []);
    from.remove_object(&graph.manifest).await.unwrap();
    let error = copy_missing(from, to, "layer").await.unwrap_err();
    let manifest = graph.manifest;
    assert_eq!(
        error.to_string(),
        format!("memory: has no object {manifest}")
    );
}

#[tokio::test]
async fn a_chain_goes_on_to_the_member_that_has_the_payload() {
    let (first, second) = (memory(), memory());
    fill(&*first).await;
    fill(&*second).await;
    let lost = digest("two");
    first.remove_payload(&lost).await.unwrap();
    let options = farseek_store::ChainOptions::default();
    let chain = farseek_store::Chain::new(first, [second.clone()], options);
    let to = memory();
    copy_missing(Arc::new(chain), to.clone(), "org/env")
        .await
        .unwrap();
    assert_eq!(contents(&*to).await, contents(&*second).await);
}
