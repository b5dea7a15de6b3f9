//! Certificates that a test trusts, made by `openssl`.

use std::fs;
use std::path::Path;
use std::process::Command;

/// In `dir`: an authority (`ca.pem`), and a certificate of its for 127.0.0.1 (`leaf.pem`) with its
/// key (`leaf.key`).
pub(crate) fn certificates(dir: &Path) {
    let openssl = |line: &str| {
        let arguments = line.split_whitespace();
        let made = Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .output()
            .expect("openssl can be run");
        assert!(
            made.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
    };
    fs::write(
        dir.join("ext"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .expect("written");
    let new = "-newkey rsa:2048 -nodes";
    openssl(&format!(
        "req -x509 {new} -days 2 -subj /CN=ca -out ca.pem -keyout ca.key"
    ));
    openssl(&format!(
        "req -new {new} -subj /CN=leaf -out leaf.csr -keyout leaf.key"
    ));
    openssl(
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile ext -out leaf.pem",
    );
}
