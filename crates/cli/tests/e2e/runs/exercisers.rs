//! File system exercisers that others have made, in editable runtimes.
//!
//! `stress-ng` looks at the results of what it does (`--verify`), and `fsx` compares a file with a
//! copy in memory while it reads, writes, maps and truncates it at random. What a stressor finds
//! must be what it finds in a plain overlay, too: [`KNOWN`] has each such finding and its reason.
//! Deliberately absent: `pjdfstest`, most of which is about what a user in a namespace may not do.

use std::collections::BTreeSet;
use std::fs;

use farseek_testkit::mount::PROMPT;
use farseek_testkit::{Need, Random, find_program, need, output_within};

use super::oracle::{own, work};
use super::site::{Site, Who, as_both};

/// All of `stress-ng` that is about files of users: no devices, no file system of its own.
const STRESSORS: [&str; 30] = [
    "access",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "fallocate",
    "fcntl",
    "filename",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "hdd",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "open",
    "rename",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

/// How much they may write, and for how long: seconds.
const LIMITS: &str = "--hdd-bytes 2m --iomix-bytes 4m --fallocate-bytes 4m --sync-file-bytes 2m \
    --timeout 6";

/// What stressors find in any overlay.
const KNOWN: [(Who, &str); 1] = [
    // It gives files to users that a namespace of users does not have: EINVAL.
    (Who::Nobody, "chown"),
];

/// Those that leave files of theirs where they are, with how often they do what they do.
const LEAVING: &str = "--dentry 1 --dentry-ops 800 --dir 1 --dir-ops 300 --link 1 --link-ops 200 \
    --symlink 1 --symlink-ops 200 --touch 1 --touch-ops 500 --hdd 1 --hdd-ops 60 --rename 1 \
    --rename-ops 200 --iomix 1 --iomix-ops 200 --utime 1 --utime-ops 50";

/// The environment: directories with a file each.
const BASE: &str = "test/base";

fn commit_base(site: &Site) {
    let base = site.make_dir("base");
    let mut random = Random::new(3);
    for directory in ["d1", "d2", "d3/sub"] {
        let mut bytes = vec![0; 1 + random.index(300_000)];
        random.fill(&mut bytes);
        fs::create_dir_all(base.join(directory)).unwrap();
        fs::write(base.join(directory).join("file"), bytes).unwrap();
    }
    own(site, "base");
    site.commit("base", BASE);
}

/// The stressors that find something, by what `script` prints, which runs them all.
fn findings(site: &Site, words: &[&str]) -> (BTreeSet<String>, String) {
    let (program, arguments) = words.split_first().unwrap();
    let mut command = match *program {
        "farseek" => site.command(arguments),
        other => site.other(other, arguments),
    };
    let output = output_within(&mut command, PROMPT).unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let names = text.lines().filter_map(|line| {
        let (_, found) = line.split_once("stress-ng: fail:")?;
        let (_, found) = found.split_once("] ")?;
        Some(found.split_once(':')?.0.to_owned())
    });
    let names: BTreeSet<String> = names.collect();
    // 2 is that one of them found something.
    let expected = if names.is_empty() { 0 } else { 2 };
    assert_eq!(output.status.code(), Some(expected), "{words:?}: {text}");
    (names, text)
}

#[test]
fn stressors_find_nothing_that_they_do_not_find_in_a_plain_overlay() {
    let test = "stressors_find_nothing_that_they_do_not_find_in_a_plain_overlay";
    if !need(
        test,
        &[Need::Program("stress-ng"), Need::Program("unshare")],
    ) {
        return;
    }
    as_both(test, |site| {
        commit_base(site);
        let all: Vec<_> = STRESSORS.map(|name| format!("--{name} 1")).to_vec();
        let stress = format!("stress-ng {} {LIMITS} --verify --temp-path", all.join(" "));
        let script = format!("mkdir /spfs/d1/s; exec {stress} /spfs/d1/s");
        let (found, said) = findings(
            site,
            &["farseek", "run", BASE, "--edit", "--", "sh", "-c", &script],
        );
        let known = KNOWN.iter().filter(|(who, _)| *who == site.who());
        let known: BTreeSet<String> = known.map(|(_, name)| (*name).to_owned()).collect();
        assert!(found.is_subset(&known), "{:?}: {said}", site.who());
        if found.is_empty() {
            return;
        }
        let (elsewhere, said) = in_a_plain_overlay(site, &stress);
        assert!(
            found.is_subset(&elsewhere),
            "{found:?} only in a runtime: {said}"
        );
    });
}

/// The same in an overlay of the kernel's own over the same files.
fn in_a_plain_overlay(site: &Site, stress: &str) -> (BTreeSet<String>, String) {
    let place = site.make_dir("plain").display().to_string();
    let base = site.path("base").display().to_string();
    let (namespace, marks, become_user) = match site.who() {
        Who::Root => ("-m", "", ""),
        // The one who mounts is root there; the one who works is not.
        Who::Nobody => (
            "-Urm",
            ",userxattr",
            "unshare -U --map-user=65534 --map-group=65534",
        ),
    };
    let script = format!(
        "set -e; cd {place}; mount -t tmpfs upper .; cd {place}; mkdir upper work merged
        mount -t overlay -o lowerdir={base},upperdir=upper,workdir=work,index=off{marks} o merged
        mkdir merged/d1/s; exec {become_user} {stress} {place}/merged/d1/s"
    );
    findings(site, &["unshare", namespace, "sh", "-c", &script])
}

/// Commits what `script` does in a runtime, and sees that it is what was to be seen there.
fn commits_what_was_seen(site: &Site, script: &str) {
    let plain = site.make_dir("seen");
    let script = format!(
        "{script}; cp -a /spfs/. {}; \"$FARSEEK\" commit layer -t test/l > /dev/null",
        plain.display()
    );
    site.script(&[BASE, "--edit"], &script);
    let task = format!("compare|{}|0", plain.display());
    work(site, &["test/base+test/l"], task, "true");
}

#[test]
fn what_stressors_leave_is_committed() {
    let test = "what_stressors_leave_is_committed";
    if !need(test, &[Need::Program("stress-ng")]) {
        return;
    }
    as_both(test, |site| {
        commit_base(site);
        let stress = format!("stress-ng -q --keep-files --seed 7 {LEAVING} {LIMITS} --verify");
        let script = format!(
            "rm -r /spfs/d2; mkdir /spfs/d2; {stress} --temp-path /spfs/d2
            {stress} --temp-path /spfs/d3/sub; test $(find /spfs | wc -l) -gt 2000"
        );
        commits_what_was_seen(site, &script);
    });
}

#[test]
fn fsx_finds_nothing_and_what_it_leaves_is_committed() {
    let test = "fsx_finds_nothing_and_what_it_leaves_is_committed";
    if !need(test, &[Need::Program("fsx")]) {
        return;
    }
    as_both(test, |site| {
        commit_base(site);
        // Where it was installed need not be open to everybody.
        let program = site.path("fsx");
        fs::copy(find_program("fsx").unwrap(), &program).unwrap();
        let fsx = |seed: u32, file: &str| {
            let program = program.display();
            format!(
                "{program} -P tmp -S {seed} -N 4000 {file} > tmp/fsx 2>&1 || {{ cat tmp/fsx; exit 1; }}"
            )
        };
        // One of the environment, that is, and one that is new.
        let script = format!("{}; {}", fsx(1, "/spfs/d1/file"), fsx(2, "/spfs/new"));
        commits_what_was_seen(site, &script);
    });
}
