//! What the process was given: the only place that reads environment variables, the user's home,
//! the host's name and the number of processors.
//!
//! Everything above takes an [`Environment`], so tests pass one made up.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, gethostname};

/// Surroundings of the process, as plain values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// Environment variables. Names that are not UTF-8 are left out.
    pub(crate) variables: BTreeMap<String, String>,
    /// Where the host keeps configuration: `/etc`.
    pub(crate) etc: PathBuf,
    /// The user's home directory, where there is one.
    pub(crate) home: Option<PathBuf>,
    /// The user's login name.
    pub(crate) user: String,
    /// The host's name.
    pub(crate) host: String,
    /// Processors this process may use, at least one.
    pub(crate) cpus: usize,
    /// Whether a person looks at the standard error.
    pub(crate) terminal: bool,
    /// Whether a person can be asked something.
    pub(crate) answers: bool,
}

impl Environment {
    /// Looks at the process.
    pub(crate) fn of_process() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((
                    name.into_string().ok()?,
                    value.to_string_lossy().into_owned(),
                ))
            })
            .collect();
        let account = User::from_uid(Uid::effective()).ok().flatten();
        let home = variables
            .get("HOME")
            .filter(|home| home.starts_with('/'))
            .map(PathBuf::from);
        let name = account.as_ref().map(|account| account.name.clone());
        Self {
            etc: PathBuf::from("/etc"),
            home: home.or(account.map(|account| account.dir)),
            user: name
                .or_else(|| variables.get("USER").cloned())
                .unwrap_or_else(|| Uid::effective().to_string()),
            host: gethostname().map_or_else(
                |_| "localhost".into(),
                |name| name.to_string_lossy().into_owned(),
            ),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            terminal: std::io::stderr().is_terminal(),
            answers: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
            variables,
        }
    }

    /// The value of a variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Where the user keeps configuration: `~/.config`.
    pub(crate) fn config_dir(&self) -> Option<PathBuf> {
        self.user_dir("XDG_CONFIG_HOME", ".config")
    }

    /// Where the user keeps data: `~/.local/share`.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        self.user_dir("XDG_DATA_HOME", ".local/share")
    }

    /// Where the user keeps what can be made again: `~/.cache`.
    pub(crate) fn cache_dir(&self) -> Option<PathBuf> {
        self.user_dir("XDG_CACHE_HOME", ".cache")
    }

    /// Where runtimes of this user have their directories, one each.
    pub(crate) fn runtimes_dir(&self) -> PathBuf {
        let user = Uid::effective();
        // Whoever becomes another user keeps the variable, which then leads to a stranger's.
        let is_ours = |path: &&Path| {
            path.is_absolute()
                && std::fs::metadata(path).is_ok_and(|found| found.uid() == user.as_raw())
        };
        match self
            .variable("XDG_RUNTIME_DIR")
            .map(Path::new)
            .filter(is_ours)
        {
            Some(directory) => directory.join("farseek"),
            None => PathBuf::from(format!("/tmp/farseek-{user}")),
        }
    }

    /// `path` with a leading `~` replaced by the user's home.
    pub(crate) fn expand(&self, path: &str) -> PathBuf {
        let rest = path.strip_prefix('~');
        match (rest, &self.home) {
            (Some(""), Some(home)) => home.clone(),
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(&rest[1..]),
            _ => PathBuf::from(path),
        }
    }

    /// The base directory specification ignores a variable that is not an absolute path.
    fn user_dir(&self, variable: &str, default: &str) -> Option<PathBuf> {
        let set = self
            .variable(variable)
            .map(Path::new)
            .filter(|path| path.is_absolute());
        set.map(Path::to_path_buf)
            .or_else(|| Some(self.home.as_ref()?.join(default)))
    }
}
