//! Environments that are written to.

use std::process::Output;

use super::site::{Site, TAG, as_both};

const EDIT: [&str; 2] = [TAG, "--edit"];

/// The names in an environment, by `find`.
fn names(site: &Site, reference: &str) -> String {
    let script = "cd /spfs; find . -mindepth 1 | sort";
    site.script(&[reference], script)
}

fn refused(output: &Output, code: i32, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(why) && said.lines().count() == 1, "{said}");
}

#[test]
fn a_runtime_is_read_only_unless_it_is_asked_for() {
    as_both("a_runtime_is_read_only", |site| {
        let attempt = "touch /spfs/new 2>/dev/null && echo yes || echo no";
        assert_eq!(site.script(&[TAG], attempt), "no\n");
        assert_eq!(site.script(&[TAG, "--edit"], attempt), "yes\n");
        assert_eq!(site.script(&["-"], attempt), "yes\n");
        assert_eq!(site.script(&["-", "--no-edit"], attempt), "no\n");
        // What was changed is gone with it.
        assert!(!names(site, TAG).contains("new"));
        let script =
            "echo x > /spfs/big; head -c 3000000 /dev/zero >> /spfs/big 2>/dev/null || echo full";
        assert_eq!(
            site.script(&[TAG, "--edit", "--tmpfs-size", "1m"], script),
            "full\n"
        );
    });
}

#[test]
fn what_has_changed_is_committed_and_nothing_else() {
    as_both("what_has_changed_is_committed", |site| {
        let script =
            "echo new > /spfs/new; rm /spfs/dir/one; mkdir /spfs/empty; chmod 700 /spfs/dir/sub
            : >> /spfs/file; echo t > /spfs/t; rm /spfs/t
            \"$FARSEEK\" diff; \"$FARSEEK\" commit layer -t test/l > /dev/null
            \"$FARSEEK\" commit platform -t test/p > /dev/null
            cat /spfs/new";
        let said = site.script(&EDIT, script);
        assert_eq!(said, "- /dir/one\n~ /dir/sub\n+ /empty\n+ /new\nnew\n");
        assert_eq!(
            site.succeed(&["ls", "-R", "test/l"]),
            ".:\ndir/\nempty/\nnew\n\n./dir:\nsub/\n\n"
        );
        let expected =
            "./dir\n./dir/sub\n./dir/sub/three\n./dir/two\n./empty\n./file\n./link\n./new\n";
        assert_eq!(names(site, "test/p"), expected);
        assert_eq!(names(site, &format!("{TAG}+test/l")), expected);
    });
}

#[test]
fn a_directory_that_was_made_anew_hides_what_was_in_it() {
    as_both("a_directory_that_was_made_anew", |site| {
        let script = "rm -r /spfs/dir; mkdir /spfs/dir; echo 2 > /spfs/dir/two; mkdir /spfs/dir/sub
            echo n > /spfs/dir/sub/new
            \"$FARSEEK\" commit layer -t test/l > /dev/null";
        site.script(&EDIT, script);
        let expected = "./dir\n./dir/sub\n./dir/sub/new\n./dir/two\n./file\n./link\n";
        assert_eq!(names(site, &format!("{TAG}+test/l")), expected);
    });
}

#[test]
fn nothing_is_no_layer() {
    as_both("nothing_is_no_layer", |site| {
        let commit = ["run", TAG, "--edit", "--", "sh", "-c"];
        let script = ": >> /spfs/file; exec \"$FARSEEK\" commit layer";
        let output = site.run(&commit.into_iter().chain([script]).collect::<Vec<_>>());
        refused(&output, 2, "nothing has changed");
        let output = site.run(&[
            "run",
            TAG,
            "--",
            "sh",
            "-c",
            "exec \"$FARSEEK\" commit layer",
        ]);
        refused(&output, 2, "not editable");
        for command in [
            &["commit", "layer"][..],
            &["commit", "platform"],
            &["diff"],
            &["edit"],
            &["reset"],
        ] {
            refused(&site.run(command), 2, "no runtime");
        }
    });
}

#[test]
fn changes_are_undone_by_path_or_all() {
    as_both("changes_are_undone", |site| {
        let script = "cd /spfs; echo c > file; rm -r dir/sub; rm link; ln -s x link; echo n > new
            cd /; \"$FARSEEK\" reset /spfs/file dir/sub; cat /spfs/file /spfs/dir/sub/three; echo
            \"$FARSEEK\" diff
            \"$FARSEEK\" reset; \"$FARSEEK\" diff; ls /spfs; cat /spfs/link; echo again > /spfs/new
            \"$FARSEEK\" diff";
        let said = site.script(&EDIT, script);
        assert_eq!(
            said,
            "the file\n3\n~ /link\n+ /new\ndir\nfile\nlink\n1+ /new\n"
        );
        let script =
            "rm -r /spfs/dir; mkdir /spfs/dir; \"$FARSEEK\" reset /spfs/dir/one 2>&1 || echo $?
            ls /spfs/dir; \"$FARSEEK\" reset /spfs/dir; ls /spfs/dir";
        let said = site.script(&EDIT, script);
        assert!(said.contains("dir has been replaced"), "{said}");
        assert!(said.ends_with("one\nsub\ntwo\n"), "{said}");
    });
}

#[test]
fn a_runtime_becomes_editable_while_it_runs_and_back() {
    as_both("a_runtime_becomes_editable", |site| {
        let script =
            "cd /spfs/dir; \"$FARSEEK\" edit; cd /spfs/dir; echo x > x; \"$FARSEEK\" edit --off
            echo y 2> /dev/null > y || echo no; cat x; \"$FARSEEK\" edit; echo z > z; ls
            \"$FARSEEK\" commit layer -t test/l > /dev/null";
        let said = site.script(&[TAG], script);
        assert_eq!(said, "no\nx\none\nsub\ntwo\nx\nz\n");
        assert!(names(site, &format!("{TAG}+test/l")).contains("./dir/z\n"));
    });
}

#[test]
fn what_cannot_be_shown_again_is_told_and_shown_when_it_can() {
    as_both("what_cannot_be_shown_again", |site| {
        // Something in the place of what the kernel needs beside the changes.
        let script = "d=$XDG_RUNTIME_DIR/farseek/$SPFS_RUNTIME/fs
            look() { cat /spfs/new /spfs/file 2>/dev/null || :; touch /spfs/x 2>/dev/null || echo no; }
            echo mine > /spfs/new; mv $d/work $d/aside; touch $d/work
            \"$FARSEEK\" reset none 2>&1 || echo $?; look; \"$FARSEEK\" edit 2>&1 || echo $?; look
            \"$FARSEEK\" edit --off; rm $d/work; mv $d/aside $d/work; \"$FARSEEK\" edit; look
            mv $d/work $d/aside; \"$FARSEEK\" reset --ref test/env 2>&1 || echo $?; look
            mv $d/aside $d/work; \"$FARSEEK\" reset; look; ls /spfs";
        let said = site.script(&EDIT, script);
        let lines: Vec<&str> = said.lines().collect();
        let told = |line: usize| {
            assert!(
                lines[line].contains("what was changed is not shown"),
                "{said}"
            );
            assert_eq!(lines[line + 1], "1", "{said}");
            assert_eq!(lines[line + 2..line + 4], ["the file", "no"], "{said}");
        };
        told(0);
        told(4);
        assert_eq!(lines[8..10], ["mine", "the file"], "{said}");
        told(10);
        assert_eq!(
            lines[14..],
            ["the file", "dir", "file", "link", "x"],
            "{said}"
        );
    });
}

#[test]
fn a_record_does_not_say_what_is_committed() {
    as_both("a_record_does_not_say_what_is_committed", |site| {
        site.make_dir("secret");
        site.write("secret/key", "mine");
        let secret = site.path("secret").display().to_string();
        // Others may write to a repository.
        let script = format!(
            "echo x > /spfs/new; \"$FARSEEK\" runtime info > tmp/record
            sed 's#\"upper_dir\": *\"[^\"]*\"#\"upper_dir\":\"{secret}\"#' tmp/record > tmp/forged
            ! cmp -s tmp/record tmp/forged
            \"$FARSEEK\" write --tag spfs/runtimes/meta/$SPFS_RUNTIME --file tmp/forged > /dev/null
            \"$FARSEEK\" diff; \"$FARSEEK\" commit layer -t test/l > /dev/null"
        );
        assert_eq!(site.script(&EDIT, &script), "+ /new\n");
        assert_eq!(site.succeed(&["ls", "test/l"]), "new\n");
    });
}

#[test]
fn changes_that_are_kept_are_there_again() {
    as_both("changes_that_are_kept", |site| {
        let words = [TAG, "--keep", "--runtime-name", "kept"];
        site.script(
            &words,
            "rm -r /spfs/dir; mkdir /spfs/dir; echo 1 > /spfs/dir/new",
        );
        farseek_testkit::wait_until("it is nobody's", farseek_testkit::mount::PROMPT, || {
            let text = site.succeed(&["runtime", "info", "kept"]);
            let record: serde_json::Value = serde_json::from_str(&text).unwrap();
            record["status"]["running"] == false && site.directories().is_empty()
        });
        site.succeed(&["runtime", "prune"]);
        let script = "ls -R /spfs/dir; echo 2 >> /spfs/dir/new; \"$FARSEEK\" diff";
        let said = site.script(&["--rerun", "kept", "-"], script);
        assert_eq!(
            said,
            "/spfs/dir:\nnew\n+ /dir/new\n- /dir/one\n- /dir/sub\n- /dir/sub/three\n- /dir/two\n"
        );
        let script = "cat /spfs/dir/new; \"$FARSEEK\" commit layer -t test/l > /dev/null";
        assert_eq!(site.script(&["--rerun", "kept", "-"], script), "1\n2\n");
        assert!(names(site, &format!("{TAG}+test/l")).starts_with("./dir\n./dir/new\n./file\n"));
        // One that cannot be entered stays what it was.
        let words = [
            "run",
            "--rerun",
            "kept",
            "--at",
            "/no/such/place",
            "-",
            "--",
            "true",
        ];
        refused(&site.run(&words), 8, "create it first");
        site.see_it_rest("kept");
        let output = site.run(&["run", "--rerun", "kept", TAG, "--", "true"]);
        refused(&output, 2, "has its own environment");
        site.succeed(&["runtime", "remove", "--remove-durable", "kept"]);
        let kept = site.sandbox.repository().join("durable_edits/kept");
        if kept.exists() {
            std::fs::remove_dir_all(kept).unwrap();
        }
    });
}
