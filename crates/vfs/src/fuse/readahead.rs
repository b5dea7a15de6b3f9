//! How far the kernel reads ahead in a file: 128 KiB for FUSE, unless root says otherwise.

use std::path::Path;

/// Where the kernel lets root set it, by the device number of a file system.
const DEVICES: &str = "/sys/class/bdi";

/// Has the kernel read `kib` ahead on the file system with the number `device`. Whoever may not
/// say so keeps what the kernel chose, and nothing is lost but some speed.
pub(super) fn set(device: &str, kib: u32) {
    let path = Path::new(DEVICES).join(device).join("read_ahead_kb");
    if let Err(error) = std::fs::write(&path, kib.to_string()) {
        tracing::debug!(path = %path.display(), %error, "the kernel's readahead stays as it is");
    }
}
