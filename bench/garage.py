"""A cluster of Garage on loopback: as many nodes as wished, a bucket, and a key to it. All of it goes away.

Garage is a distributed S3 store; `cargo install garage --version 2.5.0 --no-default-features --features
bundled-libs,lmdb` builds it in some twenty minutes. GARAGE names the program where it is not on the PATH.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys

from stand import answers, end, free_port, until

GARAGE = os.environ.get("GARAGE") or shutil.which("garage")
BUCKET = "environments"
REGION = "garage"
PATIENCE = 60  # seconds for a command of the cluster


class Node:
    """One process of the cluster, with a directory of its own."""

    def __init__(self, directory, secret, replicas, fsync):
        self.directory, self.process = directory, None
        directory.mkdir(parents=True)
        self.rpc, self.s3 = free_port(), free_port()
        self.config = directory / "garage.toml"
        self.config.write_text(f"""
            metadata_dir = "{directory}/meta"
            data_dir = "{directory}/data"
            db_engine = "lmdb"
            lmdb_map_size = "4G"
            metadata_fsync = {str(fsync).lower()}
            data_fsync = {str(fsync).lower()}
            replication_factor = {replicas}
            consistency_mode = "consistent"
            rpc_secret = "{secret}"
            rpc_bind_addr = "127.0.0.1:{self.rpc}"
            rpc_public_addr = "127.0.0.1:{self.rpc}"
            [s3_api]
            api_bind_addr = "127.0.0.1:{self.s3}"
            s3_region = "{REGION}"
            root_domain = ".s3.localhost"
        """)
        config = self.config.read_text()
        # Its log says what was read; its configuration has a secret of this cluster alone.
        self.config.write_text("\n".join(line.strip() for line in config.splitlines()))
        self.config.chmod(0o600)

    def start(self):
        log = open(self.directory / "log", "ab")
        env = os.environ | {"RUST_LOG": "garage=warn"}
        command = [GARAGE, "-c", self.config, "server"]
        self.process = subprocess.Popen(
            [str(c) for c in command], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        until("garage", answers(self.rpc), self.process)
        until("garage", answers(self.s3), self.process)

    def send(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.wait(10)

    def freeze(self):
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.send(signal.SIGCONT)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.thaw()
            end(self.process)

    def tell(self, *words):
        """What a command of the cluster prints."""
        command = [GARAGE, "-c", self.config, *words]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0:
            sys.exit(f"garage {' '.join(words)}: {done.stderr}{done.stdout}")
        return done.stdout


class Cluster:
    """Nodes that know each other, with a bucket that a key may read and write."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.key = self.secret = None

    def join(self):
        first = self.nodes[0]
        names = [node.tell("node", "id", "-q").split()[0] for node in self.nodes]
        for name in names[1:]:
            first.tell("node", "connect", name)
        for name in names:
            first.tell("layout", "assign", "-z", "here", "-c", "10G", name.split("@")[0])
        first.tell("layout", "apply", "--version", "1")
        made = first.tell("key", "create", "bench")
        self.key, self.secret = (re.search(rf"{what}:\s+(\S+)", made)[1] for what in ("Key ID", "Secret key"))
        first.tell("bucket", "create", BUCKET)
        first.tell("bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", self.key)

    def variables(self, port):
        """The environment of a client of one port."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
        }


@contextlib.contextmanager
def cluster(work, count=3, replicas=3, fsync=False):
    """A running cluster, which has ended when the block is left, also where nodes of it are frozen."""
    if not GARAGE:
        sys.exit(f"there is no program 'garage' here, and GARAGE names none. {__doc__}")
    secret = secrets.token_hex(32)
    nodes = []
    try:
        for number in range(count):
            nodes.append(Node(work / f"garage-{number}", secret, replicas, fsync))
            nodes[-1].start()
        made = Cluster(nodes)
        made.join()
        yield made
    finally:
        for node in nodes:
            node.stop()
