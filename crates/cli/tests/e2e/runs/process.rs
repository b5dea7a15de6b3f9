//! What a command sees of being run: nothing.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::{fs, path::Path};

use farseek_testkit::mount::PROMPT;
use farseek_testkit::{ChildGuard, Need, find_program, wait_until};
use nix::sys::signal::Signal;

use super::site::{TAG, as_both};

#[test]
fn it_ends_as_the_command_ends() {
    as_both("it_ends_as_the_command_ends", |site| {
        for code in [0, 1, 2, 42, 126, 127, 128, 137, 255] {
            let output = site.run(&["run", TAG, "--", "sh", "-c", &format!("exit {code}")]);
            assert_eq!(output.status.code(), Some(code));
            assert!(output.stderr.is_empty(), "{output:?}");
        }
        for signal in [
            Signal::SIGTERM,
            Signal::SIGKILL,
            Signal::SIGINT,
            Signal::SIGHUP,
        ] {
            let script = format!("kill -{} $$", signal as i32);
            let output = site.run(&["run", TAG, "--", "sh", "-c", &script]);
            assert_eq!(output.status.signal(), Some(signal as i32), "{output:?}");
        }
        let output = site.run(&["run", TAG, "--", "no-such-program"]);
        assert_eq!(output.status.code(), Some(127));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("no-such-program") && said.lines().count() == 1,
            "{said}"
        );
        let output = site.run(&["run", TAG, "--", "/spfs/file"]);
        assert_eq!(output.status.code(), Some(126), "{output:?}");
    });
}

#[test]
fn what_is_in_the_way_is_told_before_anything_is_run() {
    as_both("what_is_in_the_way_is_told", |site| {
        let table: [(&[&str], i32, &str); 4] = [
            (&["run", "no/tag", "--", "true"], 3, "no/tag"),
            (
                &["run", TAG, "--at", "/no/such/directory", "--", "true"],
                8,
                "create it first",
            ),
            (
                &["run", TAG, "--at", "/etc/passwd", "--", "true"],
                8,
                "not a directory",
            ),
            (
                &[
                    "run",
                    TAG,
                    "--edit",
                    "--tmpfs-size",
                    "1,mode=0",
                    "--",
                    "true",
                ],
                2,
                "size",
            ),
        ];
        for (words, code, why) in table {
            let output = site.run(words);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(why), "{said}");
            site.see_it_end();
        }
    });
}

#[test]
fn words_come_through_as_they_are() {
    const NASTY: [&str; 9] = [
        "",
        "a b",
        "'",
        "\"",
        "$HOME `id` $(id)",
        "line\nbreak\n",
        "-n",
        "\\",
        "*",
    ];
    as_both("words_come_through_as_they_are", |site| {
        let first = ["run", TAG, "--", "printf", "%s\\0"];
        let words: Vec<&str> = first.into_iter().chain(NASTY).collect();
        let printed = site.succeed(&words);
        assert_eq!(printed.split_terminator('\0').collect::<Vec<_>>(), NASTY);
    });
}

#[test]
fn it_is_the_same_process_for_everybody() {
    as_both("it_is_the_same_process_for_everybody", |site| {
        let script = "echo $$; id -u; pwd; cat /proc/$$/task/$$/children; echo; \
            for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; cat /spfs/file; exec cat";
        let mut command = site.command(&["run", TAG, "--", "sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ChildGuard::spawn(&mut command).unwrap();
        let pid = child.pid();
        let mut stdin = child.child().stdin.take().unwrap();
        stdin.write_all(b"what is said\n").unwrap();
        drop(stdin);
        let mut said = String::new();
        let mut stdout = child.child().stdout.take().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        let directory = site.sandbox.path().display().to_string();
        let user = site.other("id", &["-u"]).output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let pid = pid.to_string();
        assert_eq!(lines[..3], [pid.as_str(), user.trim(), &directory]);
        // The shell waits for `cat`, and for nobody that it did not start.
        assert_eq!(lines[3].split_whitespace().count(), 1, "{said}");
        // What is open is what whoever started the tests has left open, and no more.
        let open = "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; exit";
        let open = site.other("sh", &["-c", open]).output().unwrap().stdout;
        let open = String::from_utf8(open).unwrap();
        let expected = open.lines().chain(["the file", "what is said"]);
        assert_eq!(lines[4..], expected.collect::<Vec<_>>());
        assert!(child.wait_within(PROMPT).unwrap().success());
    });
}

#[test]
fn signals_reach_the_command_and_stop_and_continue_it() {
    as_both("signals_reach_the_command", |site| {
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut command = site.command(&["run", TAG, "--", "sh", "-c", script]);
        command.stdout(Stdio::piped());
        let mut child = ChildGuard::spawn(&mut command).unwrap();
        let mut ready = [0; 6];
        let mut stdout = child.child().stdout.take().unwrap();
        stdout.read_exact(&mut ready).unwrap();
        child.signal(Signal::SIGTSTP).unwrap();
        let is = |state: &str, child: &ChildGuard| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
            stat.rsplit_once(')')
                .unwrap()
                .1
                .trim_start()
                .starts_with(state)
        };
        wait_until("it has stopped", PROMPT, || is("T", &child));
        child.signal(Signal::SIGCONT).unwrap();
        wait_until("it goes on", PROMPT, || !is("T", &child));
        child.signal(Signal::SIGTERM).unwrap();
        assert_eq!(child.wait_within(PROMPT).unwrap().code(), Some(7));
    });
}

#[test]
fn a_terminal_is_the_commands_own() {
    if !farseek_testkit::need("a_terminal_is_the_commands_own", &[Need::Program("script")]) {
        return;
    }
    as_both("a_terminal_is_the_commands_own", |site| {
        // `script` gives it a terminal, types what we write, and ends as it ends.
        let inner = format!(
            "exec \"$FARSEEK\" run {TAG} -- sh -c 'test -t 0 && test -t 1 || exit 3; \
             set -- $(cut -d\")\" -f2 /proc/$$/stat); test $3 = $6 || exit 4; \
             trap \"exit 5\" INT; echo ready; while :; do sleep 0.01; done'"
        );
        let mut command = site.other("script", &["-qec", &inner, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ChildGuard::spawn(&mut command).unwrap();
        let mut stdout = child.child().stdout.take().unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"ready") {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            said.extend(byte);
        }
        // Ctrl-C.
        let mut stdin = child.child().stdin.take().unwrap();
        stdin.write_all(b"\x03").unwrap();
        stdin.flush().unwrap();
        assert_eq!(child.wait_within(PROMPT).unwrap().code(), Some(5));
    });
}

#[test]
fn nobody_else_sees_it_and_the_host_stays_as_it_is() {
    as_both("nobody_else_sees_it", |site| {
        site.make_dir("other");
        site.write("other/other", "x");
        site.commit("other", "test/other");
        let before = (
            fs::read_to_string("/proc/self/mountinfo").unwrap(),
            names_in_root(),
        );
        let mut first = site.start(&["sleep", "1000"]);
        let record = site.record();
        let seen = site.succeed(&["run", "test/other", "--", "ls", "/spfs"]);
        assert_eq!(seen, "other\n");
        let name = record["name"].as_str().unwrap();
        let joined = site.succeed(&["join", name, "--", "ls", "/spfs"]);
        assert_eq!(joined, "dir\nfile\nlink\n");
        assert_eq!(names_in_root(), before.1);
        // Tests that run beside this one mount elsewhere.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(" /spfs "), "{mounts}\n{}", before.0);
        first.signal(Signal::SIGKILL).unwrap();
        first.wait_within(PROMPT).unwrap();
    });
}

fn names_in_root() -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir("/").unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn everything_else_is_where_it_was() {
    as_both("everything_else_is_where_it_was", |site| {
        let script = "ls / | grep -vx spfs; cat /proc/self/mountinfo > /dev/null; ls -d /dev/null /proc/self/fd";
        let inside = site.script(&[TAG], script);
        let outside = site.other("sh", &["-c", script]).output().unwrap();
        assert_eq!(inside, String::from_utf8(outside.stdout).unwrap());
        // In no chroot: programs can still make namespaces of their own.
        if find_program("unshare").is_some() {
            assert_eq!(
                site.script(&[TAG], "unshare -Ur cat /spfs/file"),
                "the file\n"
            );
        }
        // And runtimes in runtimes.
        let nested =
            format!("\"$FARSEEK\" run - -- ls /spfs; \"$FARSEEK\" run {TAG} -- cat /spfs/link");
        assert_eq!(site.script(&[TAG], &nested), "1");
    });
}

#[test]
fn it_can_be_at_another_directory() {
    as_both("it_can_be_at_another_directory", |site| {
        let at = site.make_dir("place");
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
        let file = at.join("file");
        let printed = site.succeed(&[
            "run".as_ref(),
            TAG.as_ref(),
            "--at".as_ref(),
            at.as_os_str(),
            "--".as_ref(),
            "cat".as_ref(),
            file.as_os_str(),
        ]);
        assert_eq!(printed, "the file\n");
        assert!(!Path::new(&file).exists());
        let script = format!("echo new > {0}/new; \"$FARSEEK\" diff", at.display());
        let at = at.display().to_string();
        assert_eq!(
            site.script(&[TAG, "--edit", "--at", &at], &script),
            "+ /new\n"
        );
    });
}
