//! What a test needs of the machine it runs on.
//!
//! A test that cannot run says so in one plain line, and on the machine that must run them all
//! (`CI=true`) it fails instead: a test never passes by not having been run.

use std::path::Path;

use nix::unistd::{AccessFlags, access, geteuid};

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `/dev/fuse`, and the right to open it.
    Fuse,
    /// To be the superuser.
    Root,
    /// A program on the `PATH`.
    Program(&'static str),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Fuse => access("/dev/fuse", AccessFlags::R_OK | AccessFlags::W_OK).is_ok(),
            Self::Root => geteuid().is_root(),
            Self::Program(name) => find_program(name).is_some(),
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Fuse => "/dev/fuse that can be opened".to_owned(),
            Self::Root => "to run as root".to_owned(),
            Self::Program(name) => format!("the program '{name}'"),
        }
    }
}

/// Whether the test called `test` can run. Where it cannot, a line on stderr says why.
///
/// # Panics
/// Where it cannot run and the environment variable `CI` is `true`.
#[must_use]
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see it"
)]
pub fn need(test: &str, needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !need.is_met()) else {
        return true;
    };
    let everything = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    eprintln!("{}", left_out(test, *missing, everything));
    false
}

/// The line that says so; a panic where `everything` must run.
fn left_out(test: &str, missing: Need, everything: bool) -> String {
    let line = format!("LEFT OUT: {test}: it needs {}", missing.describe());
    assert!(!everything, "{line}");
    line
}

/// Where `name` is on the `PATH`.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{Need, find_program, left_out, need};

    #[test]
    fn a_test_that_cannot_run_says_so() {
        let line = left_out("the test", Need::Program("thing"), false);
        assert_eq!(line, "LEFT OUT: the test: it needs the program 'thing'");
    }

    #[test]
    #[should_panic(expected = "LEFT OUT: the test: it needs to run as root")]
    fn a_test_that_cannot_run_fails_where_all_must() {
        left_out("the test", Need::Root, true);
    }

    #[test]
    fn programs_are_found_or_not() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
        assert!(need("this test", &[Need::Program("sh")]));
    }
}
