//! Mounts made with the real program, and undone whatever becomes of the test.
//!
//! A [`Sandbox`] gives the program a home of its own, so that no test sees the configuration or
//! the repository of the person who runs it. A [`MountGuard`] holds the mount's own process in the
//! foreground, so that a test can stop and kill exactly that one.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::child::{ChildGuard, output_within};

/// How long the program may take for anything that waits for no remote.
pub const PROMPT: Duration = Duration::from_secs(60);

/// A mounted file system, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Where it is.
    pub mountpoint: PathBuf,
    /// The kind of file system, such as `fuse.farseek`.
    pub kind: String,
    /// Options of the mount.
    pub options: String,
}

/// Every mount this process can see.
///
/// # Panics
/// `/proc` is not there.
pub fn mounts() -> Vec<MountEntry> {
    let text = fs::read("/proc/self/mountinfo").expect("/proc is mounted");
    text.split(|&byte| byte == b'\n')
        .filter_map(parse_mount)
        .collect()
}

fn parse_mount(line: &[u8]) -> Option<MountEntry> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let separator = words.iter().position(|word| *word == b"-")?;
    let text = |at: usize| Some(String::from_utf8_lossy(words.get(at)?).into_owned());
    Some(MountEntry {
        mountpoint: OsString::from_vec(unescape(words.get(4)?)).into(),
        kind: text(separator + 1)?,
        options: text(5)?,
    })
}

/// Undoes the kernel's octal escapes.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .filter(|digits| first == b'\\' && digits.is_ascii());
        let escaped =
            digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// Whether anything is mounted exactly at `path`.
pub fn is_mounted(path: &Path) -> bool {
    mounts().iter().any(|mount| mount.mountpoint == path)
}

/// Takes everything mounted at `path` or below away, as a last resort lazily.
fn unmount_all_below(path: &Path) {
    for mount in mounts().into_iter().rev() {
        if mount.mountpoint.starts_with(path) {
            let _ = umount2(&mount.mountpoint, MntFlags::MNT_DETACH);
            if is_mounted(&mount.mountpoint) {
                let _ = Command::new("fusermount3")
                    .args(["-u", "-z", "-q"])
                    .arg(&mount.mountpoint)
                    .status();
            }
        }
    }
}

/// A home, a repository and mount points of their own, all gone afterwards.
#[derive(Debug)]
pub struct Sandbox {
    /// Taken when the sandbox goes, once nothing is mounted below it.
    directory: Option<TempDir>,
    path: PathBuf,
    program: PathBuf,
    /// What the program is told beside what every sandbox tells it.
    variables: Vec<(String, String)>,
}

impl Sandbox {
    /// A sandbox for `program`, the `farseek` under test.
    ///
    /// # Panics
    /// There is no room for it.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let directory = tempfile::Builder::new().prefix("farseek-test-").tempdir();
        let directory = directory.expect("a temporary directory can be made");
        // The kernel lists mounts by their real path.
        let path = directory
            .path()
            .canonicalize()
            .expect("the directory was just made");
        for name in ["home", "run", "tmp"] {
            fs::create_dir(path.join(name)).expect("the directory is empty");
        }
        Self {
            directory: Some(directory),
            path,
            program: program.into(),
            variables: Vec::new(),
        }
    }

    /// Gives the program a variable of the environment from now on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.retain(|(there, _)| there != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The sandbox's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The local repository of the sandbox's home, whether it exists or not.
    pub fn repository(&self) -> PathBuf {
        self.path.join("home/.local/share/spfs")
    }

    /// A new directory in the sandbox.
    ///
    /// # Panics
    /// It exists.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir(&path).expect("a directory of a name that is new");
        path
    }

    /// The program, in the sandbox's home and without the caller's configuration.
    pub fn command<I: AsRef<std::ffi::OsStr>>(&self, arguments: &[I]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.path.join("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", self.path.join("tmp"))
            .env("XDG_RUNTIME_DIR", self.path.join("run"))
            // What a test sees must not depend on how full this machine's disk is.
            .env("FARSEEK_CACHE_DISK_CACHE_KEEP_FREE", "0")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.path)
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    /// It does not end promptly.
    pub fn run<I: AsRef<std::ffi::OsStr>>(&self, arguments: &[I]) -> Output {
        output_within(&mut self.command(arguments), PROMPT).expect("farseek ends promptly")
    }

    /// Runs the program, which succeeds, and returns what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn succeed<I: AsRef<std::ffi::OsStr>>(&self, arguments: &[I]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", describe(arguments, &output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes the local repository.
    ///
    /// # Panics
    /// The program fails.
    pub fn init(&self) {
        self.succeed(&[
            OsString::from("init"),
            "repo".into(),
            self.repository().into(),
        ]);
    }

    /// Commits `directory` under `tag` to the local repository.
    ///
    /// # Panics
    /// The program fails.
    pub fn commit(&self, directory: &Path, tag: &str) {
        self.succeed(&[
            "commit".as_ref(),
            directory.as_os_str(),
            "--tag".as_ref(),
            tag.as_ref(),
        ]);
    }

    /// Mounts `reference` at a new directory `name`, with more `arguments`.
    ///
    /// # Panics
    /// The mount does not appear.
    pub fn mount(&self, reference: &str, name: &str, arguments: &[&str]) -> MountGuard<'_> {
        let mountpoint = self.make_dir(name);
        let first: [&std::ffi::OsStr; 4] = [
            "mount".as_ref(),
            "--foreground".as_ref(),
            reference.as_ref(),
            mountpoint.as_ref(),
        ];
        let all: Vec<_> = first
            .into_iter()
            .chain(arguments.iter().map(|a| a.as_ref()))
            .collect();
        let log = self.path.join(format!("{name}.log"));
        let file = fs::File::create(&log).expect("the sandbox can be written");
        let mut command = self.command(&all);
        command
            .stdout(file.try_clone().expect("a file can be cloned"))
            .stderr(file);
        let mut child = ChildGuard::spawn(&mut command).expect("farseek can be started");
        let start = Instant::now();
        while !is_mounted(&mountpoint) {
            let ended = child.try_wait().expect("a child can be waited for");
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(
                ended.is_none(),
                "farseek mount ended with {ended:?}: {said}"
            );
            assert!(start.elapsed() < PROMPT, "there is no mount: {said}");
            thread::sleep(Duration::from_millis(5));
        }
        MountGuard {
            sandbox: self,
            mountpoint,
            child,
            log,
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        unmount_all_below(&self.path);
        // Their command lines name this sandbox: they were started by its test.
        for process in processes_naming(&self.path) {
            let _ = kill(process, Signal::SIGKILL);
        }
        if let Some(directory) = self.directory.take() {
            let _ = directory.close();
        }
    }
}

fn describe<I: AsRef<std::ffi::OsStr>>(arguments: &[I], output: &Output) -> String {
    let words: Vec<_> = arguments
        .iter()
        .map(|a| a.as_ref().to_string_lossy())
        .collect();
    let (out, err) = (&output.stdout, &output.stderr);
    let [out, err] = [out, err].map(|bytes| String::from_utf8_lossy(bytes));
    format!("farseek {}: {}\n{out}{err}", words.join(" "), output.status)
}

/// A mount in a [`Sandbox`], taken away when the guard goes.
#[derive(Debug)]
pub struct MountGuard<'a> {
    sandbox: &'a Sandbox,
    mountpoint: PathBuf,
    child: ChildGuard,
    log: PathBuf,
}

impl MountGuard<'_> {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// The process that answers for it.
    pub fn process(&mut self) -> &mut ChildGuard {
        &mut self.child
    }

    /// What its process has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Unmounts with the program and waits for the mount's process to end well.
    ///
    /// # Panics
    /// Anything of that fails.
    pub fn unmount(mut self) {
        self.sandbox
            .succeed(&["unmount".as_ref(), self.mountpoint.as_os_str()]);
        assert!(!is_mounted(&self.mountpoint), "still mounted after unmount");
        let status = self
            .child
            .wait_within(PROMPT)
            .expect("the mount's process ends");
        assert!(
            status.success(),
            "the mount's process ended with {status}: {}",
            self.log()
        );
    }
}

impl Drop for MountGuard<'_> {
    fn drop(&mut self) {
        let ended = matches!(self.child.try_wait(), Ok(Some(_)));
        if !ended {
            let _ = self.child.signal(Signal::SIGCONT);
            let _ = self.child.signal(Signal::SIGTERM);
            let _ = self.child.wait_within(Duration::from_secs(5));
        }
        unmount_all_below(&self.mountpoint);
        if thread::panicking() {
            print_log(&self.log);
            return;
        }
        assert!(
            !is_mounted(&self.mountpoint),
            "{} is still mounted",
            self.mountpoint.display()
        );
    }
}

#[expect(clippy::print_stderr, reason = "shown with the failure of the test")]
fn print_log(log: &Path) {
    eprintln!(
        "the mount's process said: {}",
        fs::read_to_string(log).unwrap_or_default()
    );
}

/// Processes whose command line names `path`, which is one that no other test has.
///
/// # Panics
/// `/proc` is not there.
pub fn processes_naming(path: &Path) -> Vec<Pid> {
    let needle = path.as_os_str().as_bytes();
    let names = |pid: &Pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(needle.len()).any(|window| window == needle)
    };
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw).filter(names).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_mounted, mounts, parse_mount};

    #[test]
    fn mounts_are_listed_with_their_escapes_undone() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(mounts().iter().any(|mount| mount.kind == "proc"));
        let line = br"36 35 98:0 /a /mnt\040with\134x rw,nosuid shared:1 - fuse.farseek src ro";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.mountpoint, Path::new(r"/mnt with\x"));
        assert_eq!(
            (mount.kind.as_str(), mount.options.as_str()),
            ("fuse.farseek", "rw,nosuid")
        );
        assert_eq!(parse_mount(b"short"), None);
    }
}
