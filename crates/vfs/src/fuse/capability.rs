//! What the kernel lets this process do, and where that counts.

use std::io;

/// The name of the kernel's first namespace of users: its number is fixed (`PROC_USER_INIT_INO`).
const FIRST_USERS: &str = "user:[4026531837]";

/// The bit of `CAP_SYS_ADMIN` in a mask of capabilities.
const SYS_ADMIN: u64 = 1 << 21;

/// Whether this process has `CAP_SYS_ADMIN` in effect, in its own namespace of users.
pub fn is_admin() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| has_capability(&status, SYS_ADMIN))
}

/// Whether this process is in the machine's own namespace of users.
///
/// # Errors
/// `/proc` does not tell.
pub fn is_in_first_users() -> io::Result<bool> {
    let name = std::fs::read_link("/proc/self/ns/user")?;
    Ok(name.as_os_str() == FIRST_USERS)
}

/// Whether the text of a `/proc/<id>/status` shows a capability in effect.
fn has_capability(status: &str, bit: u64) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_in_effect_are_found() {
        let status = |mask| format!("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n");
        assert!(has_capability(&status("000001ffffffffff"), SYS_ADMIN));
        assert!(has_capability(&status("0000000000200000"), SYS_ADMIN));
        assert!(!has_capability(&status("0000000000000000"), SYS_ADMIN));
        assert!(!has_capability(&status("zz"), SYS_ADMIN));
        assert!(!has_capability("", SYS_ADMIN));
    }
}
