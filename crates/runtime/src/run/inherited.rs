//! What the host of a runtime inherits without wanting it.

use std::fs;
use std::io;
use std::path::Path;

use nix::fcntl::OFlag;

/// Closes what the front was given by others, and gave to this process without knowing: a pipe
/// would otherwise stay open for as long as the runtime lives.
pub(super) fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(&name));
        if number > 2 && info.is_ok_and(|info| survives_exec(&info)) {
            inherited.push(number);
        }
    }
    for number in inherited {
        nix::unistd::close(number)?;
    }
    Ok(())
}

/// Whether the text of a `/proc/<id>/fdinfo/<number>` is of a descriptor that programs inherit:
/// all that we open ourselves is not.
fn survives_exec(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlag::O_CLOEXEC.bits() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_descriptors_are_told_from_ours() {
        assert!(survives_exec("pos:\t0\nflags:\t0100002\nmnt_id:\t9\n"));
        assert!(!survives_exec("pos:\t0\nflags:\t02100002\nmnt_id:\t9\n"));
        assert!(!survives_exec("pos:\t0\n"));
    }
}
