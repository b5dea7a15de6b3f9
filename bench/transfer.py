#!/usr/bin/env python3
"""push and pull of 20,000 small files and of 2 GiB in one, against `rsync -a` of the same directory and
a plain copy over HTTP.

`--remote URL` pushes to and pulls from that repository (such as grpc://127.0.0.1:7737, from `farseek
server`) instead of a second directory on this disk. Every push brings it a tree of its own, and
nothing is removed from it.
"""

import argparse
import contextlib
import itertools
import shutil

from common import BINARY, alternate, environment, large_file, need, report, run, small_files, start, timed, workdir
from stand import NGINX, static_server

RSYNC = shutil.which("rsync")
CURL = shutil.which("curl")


def renew(tree, number):
    """Makes every file another one, by its last byte, so that nobody has it yet."""
    for path in tree.rglob("*"):
        if path.is_file():
            with open(path, "r+b") as f:
                f.seek(-1, 2)
                f.write(bytes([number % 256]))


class Ways:
    """The ways to get a tree to another place. All give seconds; what they have made is gone after."""

    def __init__(self, work, tree, remote, env):
        self.work, self.tree, self.remote, self.env = work, tree, remote, env
        self.numbers = itertools.count(1)
        self.here, self.copy = work / "here", work / "copy"
        run([BINARY, "init", "repo", self.here], env)
        self.commit("bench/tree")
        if remote:
            run([BINARY, "push", "bench/tree", "--sync", "--from", self.here, "--to", remote], env)

    def commit(self, tag):
        run([BINARY, "commit", self.tree, "--tag", tag, "--remote", self.here], self.env)

    def push(self):
        if not self.remote:
            return self.transfer("push", "bench/tree", self.here)
        number = next(self.numbers)
        renew(self.tree, number)
        tag = f"bench/tree{number}"
        self.commit(tag)
        return timed(lambda: run([BINARY, "push", tag, "--sync", "--from", self.here, "--to", self.remote], self.env))

    def pull(self):
        return self.transfer("pull", "bench/tree", self.remote or self.here)

    def transfer(self, command, tag, source):
        run([BINARY, "init", "repo", self.copy], self.env)
        seconds = timed(lambda: run([BINARY, command, tag, "--from", source, "--to", self.copy], self.env))
        shutil.rmtree(self.copy)
        return seconds

    def rsync(self, *then):
        def work():
            run([RSYNC, "-a", f"{self.tree}/", self.copy])
            if then:
                run([*then, self.copy])

        seconds = timed(work)
        shutil.rmtree(self.copy)
        return seconds

    def rsync_synced(self):
        """As durable as ours."""
        return self.rsync("sync", "-f")

    def plain(self, port, *then):
        """All files over one connection, one after the other, by a program that knows their names."""
        names = [path.relative_to(self.tree) for path in self.tree.rglob("*") if path.is_file()]
        config = self.work / "curl.conf"
        config.write_text("".join(f'url = "http://127.0.0.1:{port}/{n}"\noutput = "{self.copy / n}"\n' for n in names))

        def work():
            run([CURL, "--silent", "--fail", "--create-dirs", "--config", config])
            if then:
                run([*then, self.copy])

        seconds = timed(work)
        shutil.rmtree(self.copy)
        return seconds


@contextlib.contextmanager
def plain_server(work, tree, env):
    """A web server over the tree itself; yields its port, or nothing where it cannot be."""
    if not NGINX:
        yield None
        return
    with static_server(work, tree, env) as (port, _log):
        yield port


def compare(work, tree, remote, rounds, title, wanted):
    env = environment(work / "home")
    with plain_server(work, tree, env) as port:
        ways = Ways(work, tree, remote, env)
        timed_ways = {"push": ways.push, "pull": ways.pull}
        if RSYNC:
            timed_ways |= {"rsync -a": ways.rsync, "rsync -a + sync": ways.rsync_synced}
        else:
            print(f"{title}: no rows of rsync: there is no program 'rsync' here", flush=True)
        if port and CURL:
            timed_ways["plain HTTP copy"] = lambda: ways.plain(port)
            timed_ways["plain HTTP copy + sync"] = lambda: ways.plain(port, "sync", "-f")
        else:
            print(f"{title}: no rows of a plain HTTP copy: it needs nginx and curl", flush=True)
        seconds = alternate(rounds, **timed_ways)
        shutil.rmtree(ways.here)
    rows = {f"{way}, s": taken for way, taken in seconds.items()}
    for way, taken in seconds.items():
        if way not in ("push", "pull"):
            rows |= {f"{way} / {ours}": (taken / seconds[ours], wanted.get(way, "")) for ours in ("push", "pull")}
    report(f"{title}, {remote or 'between two directories'}", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--mib", type=int, default=2048, help="of the large file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--remote", metavar="URL")
    args = parser.parse_args()
    need(BINARY)
    with workdir() as work:
        small_files(work / "small", args.files)
        title = f"push and pull of {args.files} small files"
        compare(work, work / "small", args.remote, args.rounds, title, {"rsync -a": ">= 1"})
        shutil.rmtree(work / "small")
        large_file(work / "large" / "large", args.mib << 20)
        title = f"push and pull of {args.mib} MiB in one file"
        compare(work, work / "large", args.remote, args.rounds, title, {"plain HTTP copy": ">= 0.8"})


if __name__ == "__main__":
    start(main)
