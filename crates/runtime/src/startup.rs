//! What is executed in an environment: the command itself where nothing has to be read first.
//!
//! An environment may bring startup scripts, `etc/spfs/startup.d/*.sh`. They set variables for
//! what follows, so a shell has to read them and then execute the command, which gets its words
//! one by one: nothing is put together to a line that a shell would part again. `bash` reads them
//! where it is there, for they are written for it, and `sh` where it is not. An interactive `bash`
//! reads them after the user's own `~/.bashrc`, from a startup file, so that functions and aliases
//! stay as well.
//!
//! Variables that are to be preserved are set again after `~/.bashrc` and before the scripts, as
//! SPFS does, but in quotes within which nothing is special.
//!
//! Whose shell is `csh` or `tcsh` has the scripts that are written for it, `*.csh`, read instead.
//! Such a shell has no option for a startup file of ours: it reads `.cshrc` in its home. So an
//! interactive one is told that the runtime's directory is its home, by a file there that first
//! says where home is, and reads the user's own. It drops empty words and knows no way to execute
//! words as they are, so a command goes through it with a letter before each word, which another
//! shell takes away.
//!
//! Deliberately absent: the user's startup file for a command that is not a shell.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// Where an environment keeps its startup scripts.
const SCRIPTS: &str = "etc/spfs/startup.d";

/// The startup file of `csh`, in what it takes for its home.
pub const CSH_STARTUP_FILE: &str = ".cshrc";

/// For `bash`: its arguments are the directory and the command. They are put into an array, which
/// a script does not change by the way.
const BASH: &str = r#"farseek_scripts=$1; shift; farseek_command=("$@")
for farseek_script in "$farseek_scripts"/*.sh; do [ -r "$farseek_script" ] && . "$farseek_script"; done
unset farseek_scripts farseek_script
exec -- "${farseek_command[@]}""#;

/// For other shells of its family.
const SH: &str = r#"farseek_scripts=$1; shift
for farseek_script in "$farseek_scripts"/*.sh; do [ -r "$farseek_script" ] && . "$farseek_script"; done
unset farseek_scripts farseek_script
exec "$@""#;

/// What `csh` executes: takes the letter away and executes the command.
const BASH_AFTER_CSH: &str = r#"exec -- "${@#x}""#;

/// The same for other shells.
const SH_AFTER_CSH: &str =
    r#"for farseek_word do shift; set -- "$@" "${farseek_word#x}"; done; exec "$@""#;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The program: a path, or a name to be looked for.
    pub program: OsString,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Variables that are set for it.
    pub variables: Vec<(OsString, OsString)>,
}

impl Words {
    /// `program` with `arguments`.
    pub fn new<I: Into<OsString>>(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = I>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            variables: Vec::new(),
        }
    }
}

/// The directory of the startup scripts of the environment at `at`, where it has any.
pub fn scripts(at: &Path) -> Option<PathBuf> {
    let directory = at.join(SCRIPTS);
    let mut entries = fs::read_dir(&directory).ok()?.flatten();
    let any = entries.any(|entry| Path::new(&entry.file_name()).extension() == Some("sh".as_ref()));
    any.then_some(directory)
}

/// What executes `command` once the `scripts` have been read by `shell`, a `bash` or another one.
pub fn after_scripts(command: Words, scripts: Option<&Path>, shell: &Path) -> Words {
    let Some(scripts) = scripts else {
        return command;
    };
    let program = match is_bash(shell) {
        true => BASH,
        false => SH,
    };
    let first = [
        "-c".into(),
        program.into(),
        "farseek".into(),
        scripts.into(),
    ];
    let words = first.into_iter().chain([command.program]);
    Words::new(shell, words.chain(command.arguments))
}

/// An interactive `bash` that reads the file `startup`.
pub fn interactive(bash: &Path, startup: &Path) -> Words {
    Words::new(bash, [OsStr::new("--rcfile"), startup.as_os_str()])
}

/// The scripts of the environment at `at` for `csh`, in order.
pub fn csh_scripts(at: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(at.join(SCRIPTS)) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension() == Some("csh".as_ref()))
        // One that cannot be read would end the shell.
        .filter(|path| fs::File::open(path).is_ok())
        .collect();
    found.sort();
    found
}

/// What executes `command` once `scripts` have been read by `csh`; `shell` is one of another
/// family.
pub fn after_csh_scripts(command: Words, scripts: &[PathBuf], csh: &Path, shell: &Path) -> Words {
    let take = "set farseek_command = ( $argv:q ) ; set argv = ( )".to_owned();
    let execute = "exec $farseek_command:q".to_owned();
    let read = scripts.iter().map(|script| source(script));
    let steps = [take].into_iter().chain(read).chain([execute]);
    let program = steps.collect::<Vec<_>>().join(" ; ");
    let inner = match is_bash(shell) {
        true => BASH_AFTER_CSH,
        false => SH_AFTER_CSH,
    };
    let first: [OsString; 7] = [
        "-f".into(),
        "-c".into(),
        program.into(),
        shell.into(),
        "-c".into(),
        inner.into(),
        "farseek".into(),
    ];
    let words = [command.program].into_iter().chain(command.arguments);
    let words = words.map(|word| {
        let mut lettered = OsString::from("x");
        lettered.push(word);
        lettered
    });
    Words {
        variables: command.variables,
        ..Words::new(csh, first.into_iter().chain(words))
    }
}

/// An interactive `csh` that reads the startup file in `directory`.
pub fn interactive_csh(csh: &Path, directory: &Path) -> Words {
    Words {
        variables: vec![("HOME".into(), directory.into())],
        ..Words::new(csh, [] as [OsString; 0])
    }
}

/// The text of a startup file for `csh`, whose home is really at `home`.
pub fn csh_startup_file(
    home: Option<&str>,
    scripts: &[PathBuf],
    preserved: &[(String, String)],
) -> String {
    let set = preserved.iter().filter(|(name, _)| is_name(name));
    let (mut lines, mut after) = (Vec::new(), Vec::new());
    // What is special in quotes is known before the user's file, which may change it.
    for (number, (name, value)) in set.enumerate() {
        lines.push(format!("set farseek_{number} = {}", csh_quoted(value)));
        after.push(format!("setenv {name} $farseek_{number}:q"));
        after.push(format!("unset farseek_{number}"));
    }
    for (number, script) in scripts.iter().enumerate() {
        let path = csh_quoted(&script.to_string_lossy());
        lines.push(format!("set farseek_script_{number} = {path}"));
        after.push(format!("source $farseek_script_{number}:q"));
        after.push(format!("unset farseek_script_{number}"));
    }
    lines.extend(users_csh_file(home));
    lines.extend(after);
    lines.join("\n") + "\n"
}

/// What reads the user's own startup file, in the home that is really at `home`.
fn users_csh_file(home: Option<&str>) -> Vec<String> {
    match home {
        Some(home) => vec![
            format!("setenv HOME {}", csh_quoted(home)),
            "set home = $HOME:q".to_owned(),
            "if ( $?tcsh && -r ~/.tcshrc ) then".to_owned(),
            "source ~/.tcshrc".to_owned(),
            "else if ( -r ~/.cshrc ) then".to_owned(),
            "source ~/.cshrc".to_owned(),
            "endif".to_owned(),
        ],
        None => vec!["unsetenv HOME".to_owned(), "unset home".to_owned()],
    }
}

fn source(script: &Path) -> String {
    format!("source {}", csh_quoted(&script.to_string_lossy()))
}

/// `text` as one word of `csh`, which looks for its history in quotes, too, and ends them with the
/// line.
fn csh_quoted(text: &str) -> String {
    let text = text.replace('\'', r"'\''");
    format!("'{}'", text.replace('!', r"\!").replace('\n', "\\\n"))
}

/// Whether `shell` is of the family of `csh`, by its name.
pub fn is_csh(shell: &Path) -> bool {
    let name = shell.file_name().and_then(OsStr::to_str);
    matches!(name, Some("csh" | "tcsh"))
}

/// Whether `shell` is `bash`, by its name.
pub fn is_bash(shell: &Path) -> bool {
    shell.file_name() == Some(OsStr::new("bash"))
}

/// The text of a startup file for `bash`, with variables to be set as they are.
pub fn startup_file(scripts: &Path, preserved: &[(String, String)]) -> String {
    let mut text = "[ -r ~/.bashrc ] && . ~/.bashrc\n".to_owned();
    for (name, value) in preserved.iter().filter(|(name, _)| is_name(name)) {
        text.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    let scripts = quoted(&scripts.to_string_lossy());
    text.push_str(&format!(
        "for farseek_script in {scripts}/*.sh; do [ -r \"$farseek_script\" ] && . \"$farseek_script\"; \
         done\nunset farseek_script\n"
    ));
    text
}

/// The path of the startup scripts of an environment at `at`, whether it has any or not.
pub fn scripts_path(at: &Path) -> PathBuf {
    at.join(SCRIPTS)
}

/// What a shell takes for the name of a variable.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `text` as one word of a shell, in which nothing is special.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use farseek_testkit::{Need, find_program, need};

    use super::*;

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

    fn printed(words: &Words) -> Vec<String> {
        let output = Command::new(&words.program)
            .args(&words.arguments)
            // The person's own startup file is no part of the test.
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    /// Prints its arguments, each closed by a NUL.
    fn printer() -> Words {
        let first = ["%s\\0"].into_iter();
        Words::new("printf", first.chain(NASTY))
    }

    #[test]
    fn without_scripts_the_command_is_executed_itself() {
        let words = after_scripts(printer(), None, Path::new("/bin/sh"));
        assert_eq!(words, printer());
        assert_eq!(printed(&words), NASTY);
    }

    #[test]
    fn every_shell_hands_on_the_words_as_they_are() {
        let at = tempfile::tempdir().unwrap();
        let directory = at.path().join(SCRIPTS);
        fs::create_dir_all(&directory).unwrap();
        assert_eq!(scripts(at.path()), None);
        fs::write(directory.join("a.sh"), "export ONE=1; set -- other words").unwrap();
        assert_eq!(scripts(at.path()).as_deref(), Some(directory.as_path()));
        let shell = Path::new("/bin/bash");
        let words = after_scripts(printer(), Some(&directory), shell);
        assert_eq!(printed(&words), NASTY);
        // The positional parameters are all another shell has.
        fs::write(directory.join("a.sh"), "export ONE=1").unwrap();
        let words = after_scripts(printer(), Some(&directory), Path::new("/bin/sh"));
        assert_eq!(printed(&words), NASTY);
        for shell in ["/bin/bash", "/bin/sh"] {
            let script = Words::new("sh", ["-c", "printf '%s\\0' $ONE"]);
            let words = after_scripts(script, Some(&directory), Path::new(shell));
            assert_eq!(printed(&words), ["1"], "{shell}");
        }
    }

    #[test]
    fn csh_hands_on_the_words_as_they_are() {
        if !need("csh_hands_on_the_words", &[Need::Program("tcsh")]) {
            return;
        }
        let tcsh = find_program("tcsh").unwrap();
        let at = tempfile::tempdir().unwrap();
        let directory = at.path().join(SCRIPTS);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("b.csh"), "setenv TWO $ONE:q\n").unwrap();
        fs::write(directory.join("a.sh"), "exit 9\n").unwrap();
        let text = "setenv ONE 'a  b'\nset argv = ( other words )\n";
        fs::write(directory.join("a it's!.csh"), text).unwrap();
        let scripts = csh_scripts(at.path());
        assert_eq!(scripts.len(), 2);
        for shell in ["/bin/bash", "/bin/sh"] {
            let shell = Path::new(shell);
            let words = after_csh_scripts(printer(), &scripts, &tcsh, shell);
            assert_eq!(printed(&words), NASTY, "{}", shell.display());
            let script = Words::new("sh", ["-c", "printf '%s\\0' \"$TWO\"; exit 7"]);
            let words = after_csh_scripts(script, &scripts, &tcsh, shell);
            assert_eq!(printed(&words), ["a  b"]);
            let status = Command::new(&words.program).args(&words.arguments).status();
            assert_eq!(status.unwrap().code(), Some(7));
        }
        assert!(csh_scripts(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn csh_reads_the_users_file_and_then_ours() {
        if !need("csh_reads_the_users_file", &[Need::Program("tcsh")]) {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (home, ours) = (place.path().join("it's home!"), place.path().join("ours"));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&ours).unwrap();
        let theirs = "setenv KEPT lost; setenv RC $home:q\n\
                      set backslash_quote; set histchars = '@^'\n";
        fs::write(home.join(".cshrc"), theirs).unwrap();
        let script = home.join("a.csh");
        fs::write(&script, "setenv SEEN $KEPT:q; alias say printf %s:\n").unwrap();
        let words = interactive_csh(&find_program("tcsh").unwrap(), &ours);
        for value in NASTY {
            let preserved = [("KEPT".to_owned(), value.to_owned())];
            let text = csh_startup_file(home.to_str(), std::slice::from_ref(&script), &preserved);
            fs::write(ours.join(".cshrc"), text).unwrap();
            let mut command = Command::new(&words.program);
            let printing = "say alias ; printf '%s\\0' $RC:q $HOME:q ; exec env -0";
            command.args(["-c", printing]).envs(words.variables.clone());
            let output = command.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let home = home.to_str().unwrap();
            assert!(
                text.starts_with(&format!("alias:{home}\0{home}\0")),
                "{value:?}: {text:?}"
            );
            for name in ["KEPT", "SEEN"] {
                let expected = format!("\0{name}={value}\0");
                assert!(text.contains(&expected), "{value:?}: {text:?}");
            }
        }
        let strange = [("A;id".to_owned(), String::new())];
        assert!(!csh_startup_file(None, &[], &strange).contains("id"));
    }

    #[test]
    fn preserved_variables_are_not_evaluated() {
        let directory = tempfile::tempdir().unwrap();
        for value in NASTY {
            let preserved = [("KEPT".to_owned(), value.to_owned())];
            let file = directory.path().join("startup.sh");
            let scripts = directory.path().join("none");
            fs::write(&file, startup_file(&scripts, &preserved)).unwrap();
            let script = ". \"$0\"; printf '%s\\0' \"$KEPT\"";
            let words = Words::new("bash", ["-c".as_ref(), script.as_ref(), file.as_os_str()]);
            assert_eq!(printed(&words), [value]);
        }
        let strange = [("A;id".to_owned(), String::new())];
        assert!(!startup_file(directory.path(), &strange).contains("export"));
    }
}
