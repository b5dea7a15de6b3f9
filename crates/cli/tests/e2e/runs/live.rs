//! Live layers and run specs: what is on the host shown in an environment as it is.

use std::fs;
use std::os::unix::fs::symlink;

use farseek_testkit::Need;
use farseek_testkit::mount::PROMPT;
use nix::sys::signal::Signal;
use serde_json::json;

use super::site::{Site, TAG, Who, as_both};

/// A live layer in the directory `live`, which shows a directory and a file.
fn live(site: &Site) -> String {
    site.make_dir("live");
    site.make_dir("live/src");
    site.write("live/src/code", "1\n");
    site.write("live/config", "of mine\n");
    site.write(
        "live/layer.spfs.yaml",
        "api: spfs/v0/livelayer\ncontents:\n- src: src\n  dest: dir/live\n\
         - bind: ./config\n  dest: /spfs/file\n",
    );
    site.path("live").to_str().unwrap().to_owned()
}

/// A spec file that shows `src` at `dest`.
fn showing(site: &Site, src: &str, dest: &str) -> String {
    let text = format!("contents: [{{src: '{src}', dest: '{dest}'}}]\n");
    site.write("one/layer.spfs.yaml", &text);
    site.path("one").to_str().unwrap().to_owned()
}

fn refused(site: &Site, reference: &str, said: &str) {
    for more in [&[][..], &["--edit"]] {
        let words = ["run", reference].into_iter().chain(more.iter().copied());
        let output = site.run(&words.chain(["--", "true"]).collect::<Vec<_>>());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(said) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn what_is_on_the_host_is_shown_as_it_is() {
    as_both("what_is_on_the_host_is_shown_as_it_is", |site| {
        let reference = format!("{TAG}+{}", live(site));
        let script = "cat /spfs/file; ls /spfs/dir; cat /spfs/dir/live/code /spfs/dir/one; echo
            touch /spfs/dir/live/new 2>/dev/null || echo no; cat /spfs/link; echo
            echo x 2>/dev/null >> /spfs/file || echo no";
        let said = site.script(&[&reference], script);
        assert_eq!(said, "of mine\nlive\none\nsub\ntwo\n1\n1\nno\n1\nno\n");
        // Alone, it is in an environment of nothing else.
        let alone = site.script(
            &[site.path("live").to_str().unwrap()],
            "cd /spfs; find . | sort",
        );
        assert_eq!(alone, ".\n./dir\n./dir/live\n./dir/live/code\n./file\n");
        let said = site.script(
            &["--at", site.make_dir("at").to_str().unwrap(), &reference],
            "true",
        );
        assert_eq!(said, "");
    });
}

#[test]
fn it_changes_with_the_host_and_for_those_who_join() {
    as_both("it_changes_with_the_host", |site| {
        let reference = format!("{TAG}+{}", live(site));
        let words = ["run", &reference, "--", "sleep", "1000"];
        let mut child = farseek_testkit::ChildGuard::spawn(&mut site.command(&words)).unwrap();
        let record = site.record();
        let name = record["name"].as_str().unwrap();
        let path = |name: &str| site.path(name).to_str().unwrap().to_owned();
        let expected = json!([{"api": "spfs/v0/livelayer", "contents": [
            {"src": path("live/src"), "dest": "dir/live"},
            {"src": path("live/config"), "dest": "/spfs/file"},
        ]}]);
        assert_eq!(record["config"]["live_layers"], expected);
        assert_eq!(record["farseek"]["reference"], reference);
        assert_eq!(record["status"]["stack"].as_array().unwrap().len(), 1);
        let inside = |script: &str| site.succeed(&["join", name, "--", "sh", "-c", script]);
        let comm = format!("/proc/{}/comm", child.pid());
        farseek_testkit::wait_until("the command runs", PROMPT, || {
            fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n")
        });
        assert_eq!(inside("cat /spfs/dir/live/code"), "1\n");
        site.write("live/src/code", "2\n");
        site.write("live/src/more", "");
        assert_eq!(
            inside("cat /spfs/dir/live/code; ls /spfs/dir/live"),
            "2\ncode\nmore\n"
        );
        child.signal(Signal::SIGKILL).unwrap();
        child.wait_within(PROMPT).unwrap();
    });
}

#[test]
fn it_is_no_change_of_the_environment() {
    as_both("it_is_no_change_of_the_environment", |site| {
        let reference = format!("{TAG}+{}", live(site));
        let script = "echo 3 > /spfs/dir/live/three; echo more >> /spfs/file; \"$FARSEEK\" diff
            echo n > /spfs/new; \"$FARSEEK\" diff; \"$FARSEEK\" commit layer -t test/l > /dev/null
            \"$FARSEEK\" commit platform -t test/p > /dev/null
            \"$FARSEEK\" reset; ls /spfs /spfs/dir/live; cat /spfs/file
            \"$FARSEEK\" reset file; tail -n 1 /spfs/file; \"$FARSEEK\" diff";
        let said = site.script(&[&reference, "--edit"], script);
        let shown = "/spfs:\ndir\nfile\nlink\n\n/spfs/dir/live:\ncode\nthree\n";
        assert_eq!(said, format!("+ /new\n{shown}of mine\nmore\nmore\n"));
        assert_eq!(site.succeed(&["ls", "-R", "test/l"]), ".:\nnew\n\n");
        let said = site.script(&["test/p"], "ls /spfs /spfs/dir; cat /spfs/file");
        assert_eq!(
            said,
            "/spfs:\ndir\nfile\nlink\nnew\n\n/spfs/dir:\none\nsub\ntwo\nthe file\n"
        );
        // It was written to the host.
        assert_eq!(
            fs::read_to_string(site.path("live/src/three")).unwrap(),
            "3\n"
        );
        assert_eq!(
            fs::read_to_string(site.path("live/config")).unwrap(),
            "of mine\nmore\n"
        );
    });
}

#[test]
fn it_can_be_written_to_while_the_runtime_can() {
    as_both("it_can_be_written_to_while_the_runtime_can", |site| {
        let reference = format!("{TAG}+{}", live(site));
        let script = "try() { touch /spfs/dir/live/new 2>/dev/null && echo yes || echo no; }
            try; \"$FARSEEK\" edit; try; cat /spfs/file; exec 9> /spfs/dir/live/open
            \"$FARSEEK\" edit --off 2>&1 || try; touch /spfs/x; exec 9>&-; \"$FARSEEK\" edit --off; try
            \"$FARSEEK\" edit; try; ls /spfs/dir/live";
        let said = site.script(&[&reference], script);
        let mut lines = said.lines();
        assert_eq!(
            lines.by_ref().take(3).collect::<Vec<_>>(),
            ["no", "yes", "of mine"]
        );
        assert!(lines.next().unwrap().contains("open for writing"), "{said}");
        assert_eq!(
            lines.collect::<Vec<_>>(),
            ["yes", "no", "yes", "code", "new", "open"]
        );
    });
}

#[test]
fn what_is_replaced_on_the_host_is_shown_anew() {
    as_both("what_is_replaced_on_the_host", |site| {
        let reference = format!("{TAG}+{}", live(site));
        // As editors do it. The runtime has what it had until its mounts are made anew.
        let script = "save() { echo \"$1\" > live/new; mv live/new live/config; }
            save saved; cat /spfs/file; \"$FARSEEK\" edit; cat /spfs/file
            save again; echo x > /spfs/new; \"$FARSEEK\" reset; cat /spfs/file; ls /spfs
            echo more >> /spfs/file; cat live/config
            rm -r live/src; mkdir live/src; echo 9 > live/src/code
            \"$FARSEEK\" reset --ref test/env; cat /spfs/dir/live/code
            \"$FARSEEK\" edit --off; save last; \"$FARSEEK\" reset; cat /spfs/file
            echo x 2>/dev/null >> /spfs/file || echo no";
        assert_eq!(
            site.script(&[&reference], script),
            "of mine\nsaved\nagain\ndir\nfile\nlink\nagain\nmore\n9\nlast\nno\n"
        );
        let script = "rm live/config; \"$FARSEEK\" reset 2>&1 || echo $?; cat /spfs/dir/live/code
            echo x > /spfs/new; cat /spfs/new";
        let said = site.script(&[&reference, "--edit"], script);
        let config = site.path("live/config");
        assert!(
            said.contains(&format!("{} is shown at", config.display())),
            "{said}"
        );
        assert!(said.ends_with("\n9\nx\n"), "{said}");
    });
}

#[test]
fn what_is_read_only_on_the_host_stays_so() {
    let needs = [Need::Program("unshare"), Need::Program("mount")];
    if !farseek_testkit::need("what_is_read_only_on_the_host", &needs) {
        return;
    }
    as_both("what_is_read_only_on_the_host", |site| {
        // Others cannot change mounts of the host, here or in a runtime.
        if site.who() != Who::Root {
            return;
        }
        let reference = format!("{TAG}+{}", live(site));
        for name in ["live/src/closed", "live/src/open"] {
            site.make_dir(name);
        }
        // In namespaces of their own, which go with it.
        let script = format!(
            "for name in closed open; do mount --bind live/src/$name live/src/$name; done
            mount -o remount,bind,ro live/src/closed
            exec \"$FARSEEK\" run {reference} -- sh -c '
            try() {{ for at in . open closed; do touch /spfs/dir/live/$at/new 2> /dev/null &&
                echo $at; done; echo .; }}
            try; \"$FARSEEK\" edit; try; \"$FARSEEK\" edit --off; try; \"$FARSEEK\" edit; try'"
        );
        let mut command = site.other("unshare", &["--mount", "sh", "-ec", &script]);
        let output = farseek_testkit::output_within(&mut command, PROMPT).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let writable = ".\nopen\n.\n";
        assert_eq!(
            said,
            format!(".\n{writable}.\n{writable}"),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!site.path("live/src/closed/new").exists());
    });
}

#[test]
fn it_leads_nowhere_else() {
    as_both("it_leads_nowhere_else", |site| {
        site.make_dir("one");
        site.make_dir("one/in");
        site.make_dir("outside");
        site.write("outside/secret", "");
        symlink("../outside", site.path("one/out")).unwrap();
        for src in ["../outside", "out", "out/secret"] {
            refused(site, &showing(site, src, "x"), "outside of");
        }
        for dest in ["../x", "/spfs/../x", "x/../../y", "/etc"] {
            refused(site, &showing(site, "in", dest), "dest:");
        }
        // A link in the environment, to a directory of the host and one of its own.
        let tree = site.make_dir("linked");
        symlink(site.path("outside"), tree.join("away")).unwrap();
        symlink("real", tree.join("near")).unwrap();
        site.make_dir("linked/real");
        site.commit("linked", "test/linked");
        for dest in ["away", "away/x", "near/x"] {
            let reference = format!("test/linked+{}", showing(site, "in", dest));
            refused(site, &reference, "is a symbolic link in the environment");
        }
        refused(
            site,
            &format!("{TAG}+{}", showing(site, "in", "file")),
            "'file' is a file",
        );
        assert_eq!(fs::read_dir(site.path("outside")).unwrap().count(), 1);
    });
}

#[test]
fn nor_through_a_link_that_was_kept() {
    as_both("nor_through_a_link_that_was_kept", |site| {
        site.make_dir("one");
        site.make_dir("one/in");
        site.write("one/in/file", "shown\n");
        site.make_dir("outside");
        site.make_dir("outside/x");
        let reference = format!("{TAG}+{}", showing(site, "in", "dir/x"));
        let words = [&*reference, "--keep", "--runtime-name", "kept"];
        assert_eq!(site.script(&words, "cat /spfs/dir/x/file"), "shown\n");
        site.see_it_rest("kept");
        // What is shown is kept, too.
        let again = ["--rerun", "kept", "-"];
        assert_eq!(site.script(&again, "cat /spfs/dir/x/file"), "shown\n");
        site.see_it_rest("kept");
        let upper = site.sandbox.repository().join("durable_edits/kept/upper");
        symlink(site.path("outside"), upper.join("dir")).unwrap();
        let output = site.run(&["run", "--rerun", "kept", "-", "--", "true"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("a symbolic link is on the way"), "{told}");
        site.see_it_rest("kept");
        fs::remove_file(upper.join("dir")).unwrap();
        fs::rename(site.path("one/in"), site.path("one/gone")).unwrap();
        let output = site.run(&["run", "--rerun", "kept", "-", "--", "true"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            told.contains("one/in: No such file") && !output.status.success(),
            "{told}"
        );
        site.succeed(&["runtime", "remove", "--remove-durable", "kept"]);
        let kept = site.sandbox.repository().join("durable_edits/kept");
        if kept.exists() {
            fs::remove_dir_all(kept).unwrap();
        }
    });
}

#[test]
fn run_specs_are_stacks_and_live_layers_are_for_runtimes() {
    as_both("run_specs_are_stacks", |site| {
        live(site);
        site.make_dir("extra");
        site.write("extra/more", "");
        site.commit("extra", "test/extra");
        let here = |name: &str| site.path(name).to_str().unwrap().to_owned();
        let run_spec = |name: &str, layers: &str| {
            let text = format!("api: spfs/v0/runspec\nlayers: [{layers}]\n");
            site.write(name, &text);
            here(name)
        };
        let inner = run_spec("inner.spfs.yaml", &format!("test/extra, {}", here("live")));
        let all = run_spec("all.spfs.yaml", &format!("{TAG}, {inner}"));
        let plain = run_spec("plain.spfs.yaml", &format!("{TAG}, test/extra"));
        let said = site.script(&[&all], "ls /spfs; cat /spfs/dir/live/code");
        assert_eq!(said, "dir\nfile\nlink\nmore\n1\n");
        let circle = run_spec("circle.spfs.yaml", &here("circle.spfs.yaml"));
        refused(site, &circle, "circle.spfs.yaml: it is named twice");
        refused(site, &format!("{plain}+{plain}"), "it is named twice");
        refused(
            site,
            &here("none.spfs.yaml"),
            "none.spfs.yaml: No such file",
        );

        let layer = here("live/layer.spfs.yaml");
        let left_out = format!("warning: left out: {layer} is a live layer, which has no digest\n");
        for words in [
            &["ls", &all][..],
            &["diff", TAG, &all],
            &["commit", "platform", "--ref", &all, "-t", "test/all"],
            &["push", &all, "--to", &here("other/repo")],
        ] {
            if words[0] == "push" {
                site.make_dir("other");
                site.succeed(&["init", "repo", &here("other/repo")]);
            }
            let output = site.run(words);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && told.contains(&left_out),
                "{words:?}: {told}"
            );
        }
        assert_eq!(
            site.script(&["test/all"], "ls /spfs; ls /spfs/dir"),
            "dir\nfile\nlink\nmore\none\nsub\ntwo\n"
        );
        let mountpoint = site.make_dir("mnt");
        let output = site.run(&["mount".as_ref(), all.as_ref(), mountpoint.as_os_str()]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(
            told.contains(&format!("{layer} is a live layer: a mount cannot show it")),
            "{told}"
        );
        let output = site.run(&["commit", "platform", "--ref", &here("live")]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            told.contains("has a digest") && !output.status.success(),
            "{told}"
        );
    });
}
