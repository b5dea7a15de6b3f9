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
//! Deliberately absent: scripts for `csh`, and `~/.bashrc` for a command that is not a shell.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// Where an environment keeps its startup scripts.
const SCRIPTS: &str = "etc/spfs/startup.d";

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

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The program: a path, or a name to be looked for.
    pub program: OsString,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
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
