"""qpipe beside Snakemake, DVC and ninja on the same graph of trivial stages, in one run.

    python3 benches/runners.py QPIPE COUNT [--cold] [--with snakemake,dvc,ninja]

Programs are looked for on PATH. Up to date: each is timed several times, alternately, so that all see
the same machine; median seconds, and how many times as long as qpipe's. `--cold`: one run from
nothing each; for qpipe also how much more than the bare processes took (the same lines given to one
`sh`, one after the other), a stage.
"""

import argparse
import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import graph

parser = argparse.ArgumentParser()
parser.add_argument("qpipe")
parser.add_argument("count", type=int)
parser.add_argument("--cold", action="store_true")
parser.add_argument("--rounds", type=int, default=9)
parser.add_argument("--with", dest="others", default="snakemake,dvc,ninja")
options = parser.parse_args()

commands = {
    "qpipe": [str(Path(options.qpipe).resolve()), "run", "graph.toml", "--quiet"],
    "snakemake": ["snakemake", "--cores", "2", "--quiet"],
    "dvc": ["dvc", "repro", "--quiet"],
    "ninja": ["ninja"],
}


def timed(command, folder):
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    took = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout.decode()[-2000:]}")
    return took


def bare(folder):
    """The stages' own processes, one after the other."""
    (folder / "out").mkdir(parents=True)
    lines = []
    for index in range(options.count):
        names = [f"out/{number}" for number in graph.producers(index)]
        lines.append(f"sh -c {graph.command(index, names, f'out/{index}')!r}")
    (folder / "all.sh").write_text("\n".join(lines) + "\n")
    return timed(["sh", "all.sh"], folder)


def lock_dvc(folder):
    """Makes DVC believe that it ran: its own cold run of 1,000 stages takes 20 minutes, each stage
    writing the lock file anew. The outputs are made, put into its cache, and named in dvc.lock."""
    names = [f"out/{index}" for index in range(options.count)]
    script = [graph.command(i, [f"out/{n}" for n in graph.producers(i)], name) for i, name in enumerate(names)]
    (folder / "all.sh").write_text("\n".join(script) + "\n")
    timed(["sh", "all.sh"], folder)
    text = "schema: '2.0'\nstages:\n"
    digests = {}
    for index, name in enumerate(names):
        content = (folder / name).read_bytes()
        digest = hashlib.md5(content).hexdigest()
        digests[name] = (digest, len(content))
        place = folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        entry = lambda name: f"    - path: {name}\n      hash: md5\n      md5: {digests[name][0]}\n      size: {digests[name][1]}\n"
        text += f"  s{index}:\n    cmd: {script[index]}\n"
        deps = [entry(f"out/{number}") for number in graph.producers(index)]
        text += "".join(["    deps:\n", *deps]) if deps else ""
        text += f"    outs:\n{entry(name)}"
    (folder / "dvc.lock").write_text(text)


with tempfile.TemporaryDirectory() as root:
    root = Path(root)
    names = ["qpipe"] + [name for name in options.others.split(",") if shutil.which(name)]
    cold = {}
    for name in names:
        folder = root / name
        folder.mkdir()
        getattr(graph, name)(folder, options.count)
        if name == "dvc":
            for line in [["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "config", "core.analytics", "false"]]:
                subprocess.run(line, cwd=folder, check=True)
            if not options.cold:
                lock_dvc(folder)
        cold[name] = timed(commands[name], folder)
    if options.cold:
        processes = bare(root / "bare")
        for name in names:
            print(f"{name:10} cold {cold[name]:8.2f} s")
        print(f"{'processes':10}      {processes:8.2f} s, one after the other")
        print(f"qpipe on top of them: {1e3 * (cold['qpipe'] - processes) / options.count:.2f} ms a stage (two at a time)")
    commands["true"] = ["true"]
    series = {name: [] for name in ["true", *names]}
    for _ in range(options.rounds):
        for name in series:
            series[name].append(timed(commands[name], root / name if name != "true" else root))
    base = statistics.median(series["qpipe"])
    for name, times in series.items():
        median = statistics.median(times)
        print(f"{name:10} up to date {median:8.4f} s   {median / base:8.1f} times qpipe's")
