//! A home with a small environment in its repository, and who is at home there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use farseek_testkit::mount::{PROMPT, Sandbox};
use farseek_testkit::{ChildGuard, Need, need, output_within, wait_until};

use crate::unprivileged::{NOBODY, OpenDevice, give_to_nobody};

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Root,
    Nobody,
}

/// A sandbox whose program is run by somebody.
pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    who: Who,
    program: PathBuf,
    // After the sandbox, whose processes need it.
    _device: Option<OpenDevice>,
}

/// The environment of most tests.
pub(crate) const TAG: &str = "test/env";

/// Runs `test` as root and as nobody, where that can be done here.
pub(crate) fn as_both(name: &str, test: impl Fn(&Site)) {
    let needs = [Need::Fuse, Need::Root, Need::Program("setpriv")];
    if !need(name, &needs) {
        return;
    }
    for who in [Who::Root, Who::Nobody] {
        let site = Site::new(who);
        test(&site);
        site.see_it_end();
    }
}

impl Site {
    fn new(who: Who) -> Self {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_farseek"));
        let sandbox = Sandbox::new(&built);
        let program = match who {
            Who::Root => built,
            Who::Nobody => {
                // The build's own directory need not be open to everybody.
                let program = sandbox.path().join("farseek");
                fs::copy(built, &program).unwrap();
                program
            }
        };
        let device = (who == Who::Nobody).then(|| {
            give_to_nobody(&sandbox, &["home", "run", "tmp"]);
            OpenDevice::new()
        });
        let site = Self {
            sandbox,
            who,
            program,
            _device: device,
        };
        let tree = site.make_dir("env");
        site.write("env/file", "the file\n");
        fs::create_dir_all(tree.join("dir/sub")).unwrap();
        site.write("env/dir/one", "1");
        site.write("env/dir/two", "2");
        site.write("env/dir/sub/three", "3");
        std::os::unix::fs::symlink("dir/one", tree.join("link")).unwrap();
        site.commit("env", TAG);
        site
    }

    /// Who is at home.
    pub(crate) fn who(&self) -> Who {
        self.who
    }

    /// A path in the sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    /// A directory in the sandbox that this user may write to.
    pub(crate) fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.sandbox.make_dir(name);
        self.give(&path);
        path
    }

    /// A file in the sandbox, of this user.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.give(&path);
    }

    fn give(&self, path: &Path) {
        if self.who == Who::Nobody {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Commits a directory of the sandbox.
    pub(crate) fn commit(&self, name: &str, tag: &str) {
        self.succeed(&["commit", name, "--tag", tag]);
    }

    /// `program` as this user, in the sandbox's home.
    fn command_of<I: AsRef<OsStr>>(&self, program: &Path, arguments: &[I]) -> Command {
        let like = self.sandbox.command::<&str>(&[]);
        let mut command = match self.who {
            Who::Root => Command::new(program),
            Who::Nobody => {
                let mut command = Command::new("setpriv");
                let id = NOBODY.to_string();
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
                command.arg(program);
                command
            }
        };
        command.args(arguments).env_clear();
        for (name, value) in like.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        // What the scripts below call it.
        command.env("FARSEEK", &self.program).env("LC_ALL", "C");
        command
            .current_dir(self.sandbox.path())
            .stdin(Stdio::null());
        command
    }

    /// The program.
    pub(crate) fn command<I: AsRef<OsStr>>(&self, arguments: &[I]) -> Command {
        self.command_of(&self.program, arguments)
    }

    /// Another program.
    pub(crate) fn other<I: AsRef<OsStr>>(&self, program: &str, arguments: &[I]) -> Command {
        self.command_of(Path::new(program), arguments)
    }

    /// Runs the program to its end.
    pub(crate) fn run<I: AsRef<OsStr>>(&self, arguments: &[I]) -> Output {
        output_within(&mut self.command(arguments), PROMPT).unwrap()
    }

    /// Runs the program, which succeeds, and returns what it printed.
    pub(crate) fn succeed<I: AsRef<OsStr>>(&self, arguments: &[I]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let words: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        assert!(
            output.status.success(),
            "{:?} {words:?}: {}: {said}",
            self.who,
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a shell script prints in a runtime, started with `arguments`.
    pub(crate) fn script(&self, arguments: &[&str], script: &str) -> String {
        let script = format!("set -e; {script}");
        let words = ["run"].into_iter().chain(arguments.iter().copied());
        let words = words.chain(["--", "sh", "-c", &script]);
        self.succeed(&words.collect::<Vec<_>>())
    }

    /// A runtime of the environment with a command that goes on.
    pub(crate) fn start(&self, command: &[&str]) -> ChildGuard {
        let words = ["run", TAG, "--"]
            .into_iter()
            .chain(command.iter().copied());
        ChildGuard::spawn(&mut self.command(&words.collect::<Vec<_>>())).unwrap()
    }

    /// Names of the runtimes that have records.
    pub(crate) fn records(&self) -> Vec<String> {
        let list = self.succeed(&["runtime", "list", "--quiet"]);
        list.lines().map(str::to_owned).collect()
    }

    /// Names of the directories of runtimes.
    pub(crate) fn directories(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("run/farseek")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    /// The record of the only runtime there is, once it is complete.
    pub(crate) fn record(&self) -> serde_json::Value {
        let mut found = serde_json::Value::Null;
        wait_until("there is a complete record", PROMPT, || {
            if let [name] = &self.records()[..] {
                let text = self.succeed(&["runtime", "info", name]);
                found = serde_json::from_str(&text).unwrap();
            }
            found["config"]["mount_namespace"].is_string()
        });
        found
    }

    /// Waits until nobody is in the runtime `name`, which is kept.
    pub(crate) fn see_it_rest(&self, name: &str) {
        wait_until("it is nobody's", PROMPT, || {
            let text = self.succeed(&["runtime", "info", name]);
            let record: serde_json::Value = serde_json::from_str(&text).unwrap();
            record["status"]["running"] == false && self.directories().is_empty()
        });
    }

    /// Waits until no runtime has left anything.
    pub(crate) fn see_it_end(&self) {
        wait_until("the runtimes have ended", Duration::from_secs(20), || {
            self.directories().is_empty() && self.records().is_empty()
        });
    }
}
