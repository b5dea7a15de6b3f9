#!/usr/bin/env python3
"""`farseek server` under many: 200 readers of ranges at once, and the listing of 100,000 tags; its memory."""

import argparse
import random
import threading
import time

from clients import Client
from common import BINARY, environment, large_file, need, report, run, start, timed, workdir
from stand import commit, farseek_server, payloads, peak_bytes, resident_bytes

MIB = 1 << 20
PIECE = 256 << 10
MEMORY_WANTED = "<= 200"


def read_at_random(port, path, size, reader, until, done):
    places = random.Random(reader)
    with Client(port) as client:
        while time.monotonic() < until:
            at = places.randrange(size - PIECE)
            done[reader] += client.get(path, at, at + PIECE)


def readers(work, mib, count, seconds):
    """`count` kept connections, each asking for one random piece after the other."""
    env, tree = environment(work / "home"), work / "large"
    large_file(tree / "large", mib << 20)
    repository = commit(work, tree, env)
    payload = max(payloads(repository), key=lambda path: path.stat().st_size)
    path = f"/{payload.parent.name}{payload.name}"
    done = [0] * count
    with farseek_server(repository, env) as (_url, port, server):
        before = resident_bytes(server.pid)
        arguments = (port, path, mib << 20)
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=read_at_random, args=(*arguments, i, end, done)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report(f"{count} readers of ranges of {PIECE >> 10} KiB at once, one farseek server", {
            "all together, MiB/s": sum(done) / MIB / seconds,
            "requests": sum(done) // PIECE,
            "readers that were served": (sum(map(bool, done)), f">= {count}"),
            "resident memory of its own before, MiB": before / MIB,
            "resident memory of its own after, MiB": resident_bytes(server.pid) / MIB,
            "most resident memory, MiB": (peak_bytes(server.pid) / MIB, MEMORY_WANTED),
        })


def many_tags(repository, count):
    """`count` tags, a thousand to a folder. A tag's file holds its name, so each is the first, renamed."""
    first = repository / "tags" / "many" / "tag-000000.tag"
    text = first.read_bytes()
    for i in range(count):
        folder = repository / "tags" / "many" / f"{i // 1000:03}"
        folder.mkdir(exist_ok=True)
        name = f"tag-{i:06}"
        (folder / f"{name}.tag").write_bytes(text)
    first.unlink()


def tags(work, count):
    env, tree, repository = environment(work / "home"), work / "tree", work / "tagged"
    tree.mkdir()
    (tree / "file").write_text("text")
    run([BINARY, "init", "repo", repository], env)
    run([BINARY, "commit", tree, "--tag", "many/tag-000000", "--remote", repository], env)
    many_tags(repository, count)
    with farseek_server(repository, env) as (url, _port, server):
        listed = []
        far = timed(lambda: listed.append(run([BINARY, "ls-tags", "--recursive", "--remote", url], env)))
        near = timed(lambda: run([BINARY, "ls-tags", "--recursive", "--remote", repository], env))
        report(f"listing of {count} tags, through farseek server", {
            "tags listed": (listed[0].count(b"\n"), f">= {count}"),
            "through the server, s": far,
            "of the directory, s": near,
            "most resident memory of the server, MiB": (peak_bytes(server.pid) / MIB, MEMORY_WANTED),
        })


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="of the payload that is read")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--tags", type=int, default=100_000)
    args = parser.parse_args()
    need(BINARY)
    with workdir() as work:
        readers(work, args.mib, args.readers, args.seconds)
        tags(work, args.tags)


if __name__ == "__main__":
    start(main)
