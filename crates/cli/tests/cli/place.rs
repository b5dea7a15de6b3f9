//! A `farseek` whose home, configuration and repository are in a temporary directory.

use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output};

use assert_cmd::Command;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A place of its own for one test.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn make() -> Self {
        let root = TempDir::new().unwrap();
        std::fs::create_dir(root.path().join("home")).unwrap();
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file, and the directories it is in.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The command, which sees nothing of the user who runs the tests.
    pub(crate) fn farseek(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farseek"));
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.root.path())
            .env("TZ", "UTC")
            // What a test sees must not depend on how full this machine's disk is.
            .env("FARSEEK_CACHE_DISK_CACHE_KEEP_FREE", "0")
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .current_dir(self.root.path())
            .timeout(std::time::Duration::from_secs(120))
            .args(arguments);
        command
    }

    /// Takes `mnt` off, and waits until nobody serves it any more: its process still writes to what
    /// is removed with this place.
    pub(crate) fn take_off(&self) {
        let _ = self.farseek(&["unmount", "--lazy", "mnt"]).output();
        // A process in the background names relative paths; its home tells that it is ours.
        let home = self.path("home").into_os_string().into_encoded_bytes();
        let is_ours = |entry: std::fs::DirEntry| {
            let all = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            all.windows(home.len()).any(|window| window == home)
        };
        for _ in 0..500 {
            if !std::fs::read_dir("/proc").unwrap().flatten().any(is_ours) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// The standard output of a command that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.farseek(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "farseek {arguments:?}: {}",
            self.text(&output.stderr)
        );
        self.text(&output.stdout)
    }

    /// Exit code, standard output and standard error, with this place called `[PLACE]`.
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        let output = self.farseek(arguments).output().unwrap();
        self.describe(&output)
    }

    pub(crate) fn describe(&self, output: &Output) -> String {
        let code = output
            .status
            .code()
            .map_or("none".into(), |code| code.to_string());
        let (stdout, stderr) = (self.text(&output.stdout), self.text(&output.stderr));
        format!("exit {code}\n{stdout}{stderr}")
            .trim_end()
            .to_owned()
    }

    fn text(&self, bytes: &[u8]) -> String {
        let root = self.root.path().display().to_string();
        String::from_utf8_lossy(bytes).replace(&root, "[PLACE]")
    }
}

/// A process that is stopped whatever becomes of the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Presses Ctrl-C, and waits for its end.
    pub(crate) fn interrupt(&mut self) -> ExitStatus {
        let number = self.0.id().try_into().unwrap();
        kill(Pid::from_raw(number), Signal::SIGINT).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::print_stderr, reason = "what is left out is said")]
fn say(message: &str) {
    eprintln!("{message}");
}

/// A repository the real SPFS wrote, or `None` where the fixtures are not there, which is said.
pub(crate) fn fixture(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/fixtures")
        .join(name);
    if root.is_dir() {
        return Some(root.canonicalize().unwrap());
    }
    let message = format!("LEFT OUT: the fixture {} is not there", root.display());
    assert!(std::env::var_os("CI").is_none(), "{message}");
    say(&message);
    None
}
