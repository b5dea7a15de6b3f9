//! A repository behind a web server, and the sandbox that mounts from it with nothing local.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use farseek_testkit::handmade::Handmade;
use farseek_testkit::mount::{MountGuard, Sandbox};
use farseek_testkit::{ChildGuard, Request, StaticServer, wait_until};

/// The tag of trees that are committed.
pub(crate) const TAG: &str = "test/tree";

/// A repository in a sandbox's home, served by a static web server.
pub(crate) struct Remote {
    // Before the server, so that it unmounts while the server still answers.
    pub(crate) sandbox: Sandbox,
    pub(crate) server: StaticServer,
}

impl Remote {
    /// Commits `tree` and serves it.
    pub(crate) fn of_tree(tree: &Path) -> Self {
        let sandbox = sandbox();
        sandbox.init();
        sandbox.commit(tree, TAG);
        Self::serve(sandbox)
    }

    /// Serves a repository made by hand, and names its layer.
    pub(crate) fn handmade(make: impl FnOnce(&mut Handmade)) -> (Self, String) {
        let sandbox = sandbox();
        let layer = handmade_in(&sandbox, make);
        (Self::serve(sandbox), layer)
    }

    fn serve(sandbox: Sandbox) -> Self {
        let server = StaticServer::start(&sandbox.repository());
        Self { sandbox, server }
    }

    /// Mounts `reference` from the server alone, and forgets the requests that took.
    pub(crate) fn mount(&self, reference: &str, arguments: &[&str]) -> MountGuard<'_> {
        let url = self.server.url();
        let mut all = vec!["--no-local", "--remote", url.as_str()];
        all.extend(arguments);
        let mount = self.sandbox.mount(reference, "mnt", &all);
        // Only once it has answered is everything fetched that a mount needs.
        fs::read_dir(mount.path()).unwrap().for_each(drop);
        self.server.clear();
        mount
    }

    /// The requests for payloads since the mount.
    pub(crate) fn payload_requests(&self) -> Vec<Request> {
        self.server.requests_for("payloads/")
    }
}

/// Makes a repository by hand where `sandbox` has its own, and names its layer.
pub(crate) fn handmade_in(sandbox: &Sandbox, make: impl FnOnce(&mut Handmade)) -> String {
    let mut made = Handmade::create(&sandbox.repository()).unwrap();
    make(&mut made);
    made.finish().unwrap().to_string()
}

/// A sandbox for the program under test.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_farseek"))
}

/// Starts `farseek serve` of the local repository on a free port.
pub(crate) fn serve(sandbox: &Sandbox) -> (ChildGuard, String) {
    serve_with(sandbox, &[])
}

/// Starts `farseek serve` on a free port, with more `arguments`.
pub(crate) fn serve_with(sandbox: &Sandbox, arguments: &[&str]) -> (ChildGuard, String) {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = sandbox.command(&["serve", &address.to_string()]);
    command.args(arguments);
    let log = fs::File::create(sandbox.path().join("serve.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut server = ChildGuard::spawn(&mut command).unwrap();
    wait_until("the server answers", Duration::from_secs(20), || {
        let said = || fs::read_to_string(sandbox.path().join("serve.log")).unwrap();
        assert_eq!(
            server.try_wait().unwrap(),
            None,
            "farseek serve ended: {}",
            said()
        );
        TcpStream::connect(address).is_ok()
    });
    (server, format!("http://{address}/"))
}

/// Runs a program of this machine, which succeeds, and returns what it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}{err}",
        output.status
    );
    out.into_owned()
}
