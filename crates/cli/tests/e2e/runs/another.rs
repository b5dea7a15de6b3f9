//! Another environment in a runtime that is used, and what a runtime says of itself.

use farseek_testkit::mount::PROMPT;

use super::site::{Site, TAG, as_both};

/// Commits another environment under the tag `test/other`, with `dir/sub` in it.
fn other(site: &Site) {
    site.make_dir("other");
    site.write("other/file", "another file\n");
    site.make_dir("other/dir");
    site.make_dir("other/dir/live");
    site.write("other/dir/four", "4");
    site.commit("other", "test/other");
}

#[test]
fn a_runtime_shows_another_environment() {
    as_both("a_runtime_shows_another_environment", |site| {
        other(site);
        let script = "exec 5< /spfs/file; cd /spfs/dir; \"$FARSEEK\" reset --ref test/other
            cat /spfs/file /spfs/dir/four; echo; touch /spfs/new 2>/dev/null || echo no
            cat <&5; cat one; echo; cd /spfs/dir; ls; exec 5<&-
            \"$FARSEEK\" reset -r test/env -e; cat /spfs/file; echo x > /spfs/new; \"$FARSEEK\" diff";
        let said = site.script(&[TAG], script);
        assert_eq!(
            said,
            "another file\n4\nno\nthe file\n1\nfour\nlive\nthe file\n+ /new\n"
        );
    });
}

#[test]
fn two_changes_at_the_same_time_are_both_in_the_record() {
    as_both("two_changes_at_the_same_time", |site| {
        other(site);
        let script = "\"$FARSEEK\" reset --ref test/other & \"$FARSEEK\" edit & wait
            \"$FARSEEK\" runtime info";
        let stack = |reference: &str| {
            let info = site.script(&[reference], "\"$FARSEEK\" runtime info");
            let info: serde_json::Value = serde_json::from_str(&info).unwrap();
            info["status"]["stack"].clone()
        };
        let expected = stack("test/other");
        assert_ne!(stack(TAG), expected);
        for round in 0..12 {
            let info = site.script(&[TAG], script);
            let info: serde_json::Value = serde_json::from_str(&info).unwrap();
            assert_eq!(info["status"]["stack"], expected, "{round}");
            assert_eq!(info["status"]["editable"], true, "{round}");
        }
    });
}

#[test]
fn changes_are_undone_with_the_environment_they_were_of() {
    as_both("changes_are_undone_with_the_environment", |site| {
        other(site);
        let script =
            "echo mine > /spfs/new; rm /spfs/file; \"$FARSEEK\" reset --ref test/other+test/env
            ls /spfs; cat /spfs/file /spfs/dir/four; echo; \"$FARSEEK\" diff
            rm /spfs/dir/one; \"$FARSEEK\" commit layer -t test/l > /dev/null
            \"$FARSEEK\" commit platform -t test/p > /dev/null
            \"$FARSEEK\" edit --off; \"$FARSEEK\" reset --ref -; ls /spfs; echo n > /spfs/new
            \"$FARSEEK\" reset --ref test/other; \"$FARSEEK\" edit --off
            \"$FARSEEK\" reset --ref test/env; touch /spfs/x 2>/dev/null || echo no";
        let said = site.script(&[TAG, "--edit"], script);
        assert_eq!(said, "dir\nfile\nlink\nthe file\n4\nno\n");
        assert_eq!(site.succeed(&["ls", "-R", "test/l"]), ".:\ndir/\n\n");
        let listed = site.script(&["test/p"], "ls /spfs/dir");
        assert_eq!(listed, "four\nlive\nsub\ntwo\n");
    });
}

#[test]
fn what_is_in_the_way_leaves_it_as_it_was() {
    as_both("what_is_in_the_way_leaves_it", |site| {
        site.make_dir("live");
        site.write("live/code", "shown\n");
        let shows = |dest: &str| {
            let text = format!("contents: [{{src: code, dest: {dest}}}]\n");
            site.write("live/layer.spfs.yaml", &text);
            site.path("live").to_str().unwrap().to_owned()
        };
        let reference = format!("{TAG}+{}", shows("dir/one/x"));
        let output = site.run(&["run", &reference, "--", "true"]);
        assert!(!output.status.success());
        let reference = format!("{TAG}+{}", shows("dir/code"));
        site.make_dir("unfit");
        site.write("unfit/dir", "a file");
        site.commit("unfit", "test/unfit");
        other(site);
        let script = format!(
            "for ref in test/none test/unfit {live}; do \"$FARSEEK\" reset --ref $ref 2>&1 || echo failed $?
            done; cat /spfs/file /spfs/dir/code; \"$FARSEEK\" reset --ref test/other
            cat /spfs/file /spfs/dir/code",
            live = site.path("live").display(),
        );
        for more in [&[][..], &["--edit"]] {
            let words: Vec<_> = [&*reference]
                .into_iter()
                .chain(more.iter().copied())
                .collect();
            let said = site.script(&words, &script);
            let lines: Vec<_> = said.lines().collect();
            assert!(lines[0].contains("has no tag 'test/none'"), "{said}");
            assert!(lines[2].contains("'dir' is no directory"), "{said}");
            assert!(lines[4].contains("is a live layer"), "{said}");
            assert_eq!(
                [lines[1], lines[3], lines[5]],
                ["failed 3", "failed 1", "failed 2"]
            );
            assert_eq!(
                lines[6..],
                ["the file", "shown", "another file", "shown"],
                "{said}"
            );
        }
        let output = site.run(&["reset", "--ref", "test/other"]);
        assert_eq!(output.status.code(), Some(2));
    });
}

#[test]
fn the_record_names_what_is_shown_and_keeps_what_was() {
    as_both("the_record_names_what_is_shown", |site| {
        other(site);
        let words = [TAG, "--keep", "--runtime-name", "kept"];
        let script = "\"$FARSEEK\" runtime info; \"$FARSEEK\" reset --ref test/other
            \"$FARSEEK\" runtime info";
        let said = site.script(&words, script);
        let mut records = serde_json::Deserializer::from_str(&said).into_iter();
        let mut next = || -> serde_json::Value { records.next().unwrap().unwrap() };
        let (before, after) = (next(), next());
        assert_eq!(after["farseek"]["reference"], "test/other");
        assert_ne!(before["status"]["stack"], after["status"]["stack"]);
        assert_eq!(
            after["status"]["flattened_layers"],
            before["status"]["stack"]
        );
        site.see_it_rest("kept");
        let kept: serde_json::Value =
            serde_json::from_str(&site.succeed(&["runtime", "info", "kept"])).unwrap();
        assert_eq!(kept["status"]["stack"], after["status"]["stack"]);
        assert!(kept["status"].get("flattened_layers").is_none());
        let said = site.script(&["--rerun", "kept", "-"], "cat /spfs/file");
        assert_eq!(said, "another file\n");
        site.see_it_rest("kept");
        site.succeed(&["runtime", "remove", "--remove-durable", "kept"]);
        let kept = site.sandbox.repository().join("durable_edits/kept");
        if kept.exists() {
            std::fs::remove_dir_all(kept).unwrap();
        }
    });
}

#[test]
fn annotations_are_layers_of_a_runtime() {
    as_both("annotations_are_layers_of_a_runtime", |site| {
        site.write("notes", "ticket: FILE\nshow: all\n");
        let notes = site.path("notes").to_str().unwrap().to_owned();
        let long = format!("long={}", "x".repeat(20_000));
        let words = [
            TAG,
            "--annotation",
            "ticket=1",
            "--annotation",
            "who:me",
            "--annotation",
            &long,
            "--annotation-file",
            &notes,
            "--annotation",
            "ticket=2",
        ];
        let script = "\"$FARSEEK\" runtime info --get ticket
            \"$FARSEEK\" runtime info --get who --get show; \"$FARSEEK\" runtime info --get-all | wc -c
            \"$FARSEEK\" runtime info --get none 2>/dev/null || echo none
            \"$FARSEEK\" commit platform -t test/p > /dev/null; ls /spfs";
        let said = site.script(&words, script);
        let all = "long: \nshow: all\nticket: 2\nwho: me\n".len() + 20_000;
        assert_eq!(
            said,
            format!("2\nwho: me\nshow: all\n{all}\nnone\ndir\nfile\nlink\n")
        );
        // Of one key the lowest layer's is found, which is the last that was given.
        assert_eq!(site.succeed(&["info", "test/p", "--get", "ticket"]), "2\n");
        let repository = site.sandbox.repository();
        let words = ["run", TAG, "--no-local", "-r", repository.to_str().unwrap()];
        let words = words
            .into_iter()
            .chain(["--annotation", "a=b", "--", "true"]);
        let output = site.run(&words.collect::<Vec<_>>());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("kept in the local repository"), "{told}");
        farseek_testkit::wait_until("it is over", PROMPT, || site.directories().is_empty());
    });
}
