//! Startup scripts of an environment.

use std::io::Write as _;
use std::process::Stdio;

use farseek_testkit::mount::PROMPT;
use farseek_testkit::{ChildGuard, Need, need};

use super::site::{Site, as_both};

fn with_scripts(site: &Site) {
    site.make_dir("scripts");
    site.write(
        "scripts/etc/spfs/startup.d/a.sh",
        "export GREETING='hello  there'; set -- other words\n",
    );
    site.write(
        "scripts/etc/spfs/startup.d/b.sh",
        "export PATH=/spfs/bin:$PATH\n",
    );
    site.write(
        "scripts/bin/tool",
        "#!/bin/sh\nprintf '%s|' \"$GREETING\" \"$@\"\n",
    );
    let tool = site.path("scripts/bin/tool");
    std::fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    site.commit("scripts", "test/scripts");
}

/// What is said by a shell on a terminal, which `command` starts with `variables`, of which KEPT is
/// kept, and in which `typed` is typed: that ends it with 6.
fn on_a_terminal(site: &Site, command: &str, variables: &[(&str, &str)], typed: &str) -> String {
    let mut script = site.other("script", &["-qec", command, "/dev/null"]);
    script
        .envs(variables.iter().copied())
        .env("SPFS_ENVIRONMENT__VARIABLE_NAMES_TO_PRESERVE", "KEPT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = ChildGuard::spawn(&mut script).unwrap();
    let mut stdin = child.child().stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    stdin.flush().unwrap();
    let status = child.wait_within(PROMPT).unwrap();
    drop(stdin);
    let mut said = String::new();
    let mut stdout = child.child().stdout.take().unwrap();
    std::io::Read::read_to_string(&mut stdout, &mut said).unwrap();
    assert_eq!(status.code(), Some(6), "{said}");
    said
}

#[test]
fn they_are_read_before_the_command_which_keeps_its_words() {
    if !need("startup scripts", &[Need::Program("bash")]) {
        return;
    }
    as_both("startup scripts", |site| {
        with_scripts(site);
        let words = [
            "run",
            "test/scripts",
            "--",
            "tool",
            "a b",
            "$HOME",
            "'\"",
            "",
            "x\ny",
        ];
        assert_eq!(site.succeed(&words), "hello  there|a b|$HOME|'\"||x\ny|");
        let output = site.run(&["run", "test/scripts", "--", "sh", "-c", "exit 42"]);
        assert_eq!(output.status.code(), Some(42));
        let output = site.run(&["run", "test/scripts", "--", "no-such-program"]);
        assert_eq!(output.status.code(), Some(127));
    });
}

#[test]
fn a_shell_reads_them_and_what_it_is_given() {
    if !need("a shell", &[Need::Program("bash")]) {
        return;
    }
    as_both("a shell", |site| {
        with_scripts(site);
        let mut command = site.command(&["shell", "test/scripts"]);
        command
            .env("SHELL", "/bin/bash")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = ChildGuard::spawn(&mut command).unwrap();
        let mut stdin = child.child().stdin.take().unwrap();
        stdin
            .write_all(b"tool \"$SPFS_RUNTIME\" | wc -c\nexit 9\n")
            .unwrap();
        drop(stdin);
        let status = child.wait_within(PROMPT).unwrap();
        assert_eq!(status.code(), Some(9));
        let mut said = String::new();
        let mut stdout = child.child().stdout.take().unwrap();
        std::io::Read::read_to_string(&mut stdout, &mut said).unwrap();
        // "hello  there|", a name of 36 characters, and "|".
        assert_eq!(said.trim(), "50");
    });
}

#[test]
fn a_shell_on_a_terminal_reads_the_users_file_first() {
    if !need(
        "a shell on a terminal",
        &[Need::Program("script"), Need::Program("bash")],
    ) {
        return;
    }
    as_both("a shell on a terminal", |site| {
        with_scripts(site);
        site.write(
            "home/.bashrc",
            "GREETING=rc; KEPT=lost; greet() { echo \"<$GREETING:$KEPT>\"; }\n",
        );
        let said = on_a_terminal(
            site,
            "exec \"$FARSEEK\" shell test/scripts",
            &[("SHELL", "/bin/bash"), ("KEPT", "it's $HOME `id`")],
            "greet; exit 6\n",
        );
        assert!(said.contains("<hello  there:it's $HOME `id`>"), "{said}");
    });
}

#[test]
fn the_shells_of_cs_family_read_theirs() {
    let needs = [Need::Program("tcsh"), Need::Program("script")];
    if !need("the_shells_of_cs_family", &needs) {
        return;
    }
    as_both("the_shells_of_cs_family", |site| {
        with_scripts(site);
        site.write(
            "scripts/etc/spfs/startup.d/c.csh",
            "setenv GREETING 'of  c'; alias greet 'echo \"<${GREETING}:${KEPT}:${HOME}>\"'\n\
             setenv PATH /spfs/bin:${PATH}\n",
        );
        site.write(
            "home/.cshrc",
            "setenv KEPT lost; alias hello 'echo hel''lo'\n",
        );
        site.commit("scripts", "test/scripts");
        let mut command =
            site.command(&["run", "test/scripts", "--", "tool", "a b", "", "!'$HOME"]);
        command.env("SHELL", farseek_testkit::find_program("tcsh").unwrap());
        let output = farseek_testkit::output_within(&mut command, PROMPT).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, "of  c|a b||!'$HOME|");
        // One that is not installed: what there is for others.
        command.env("SHELL", "/nonexistent/tcsh");
        let output = farseek_testkit::output_within(&mut command, PROMPT).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, "hello  there|a b||!'$HOME|");

        // `script` would start it by that shell, too, which reads the user's file.
        let csh = farseek_testkit::find_program("tcsh").unwrap();
        let said = on_a_terminal(
            site,
            "SHELL=$CSH exec \"$FARSEEK\" shell test/scripts",
            &[
                ("CSH", csh.to_str().unwrap()),
                ("SHELL", "/bin/sh"),
                ("KEPT", "it's $HOME! `id`"),
            ],
            "greet; hello; exit 6\n",
        );
        let home = site.path("home");
        let expected = format!("<of  c:it's $HOME! `id`:{}>", home.display());
        assert!(said.contains(&expected) && said.contains("hello"), "{said}");
    });
}
