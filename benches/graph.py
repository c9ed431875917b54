"""The same graph of N trivial stages for qpipe, Snakemake, DVC and ninja, in a folder each.

    python3 benches/graph.py FOLDER N

Stage I joins the outputs of stages I/2 and I/3 (whole numbers) and adds a line; stage 0 makes a file.
"""

import sys
from pathlib import Path


def producers(index):
    return sorted({index // 2, index // 3}) if index else []


def command(index, names, out):
    # One short-lived process a stage, the same in all of them.
    return f"cat {' '.join(names) or '/dev/null'} | tail -n 1 > {out}; echo {index} >> {out}"


def qpipe(folder, count):
    text = "[pipeline]\nname = \"graph\"\n"
    for index in range(count):
        names = [f"$QPIPE_IN_P{number}" for number in producers(index)]
        inputs = ", ".join(f'p{number} = "s{number}"' for number in producers(index))
        text += f"\n[stages.s{index}]\nkind = \"command\"\nrun = '{command(index, names, '$QPIPE_OUT_X')}'\n"
        text += f"inputs = {{ {inputs} }}\noutputs = {{ x = \"x\" }}\n"
    (folder / "graph.toml").write_text(text)


def snakemake(folder, count):
    text = f"rule all:\n    input: [f'out/{{i}}' for i in range({count})]\n"
    for index in range(count):
        names = [f"out/{number}" for number in producers(index)]
        text += f"\nrule s{index}:\n    input: {names!r}\n    output: 'out/{index}'\n"
        text += f"    shell: {command(index, names, f'out/{index}')!r}\n"
    (folder / "Snakefile").write_text(text)


def dvc(folder, count):
    text = "stages:\n"
    (folder / "out").mkdir(exist_ok=True)
    for index in range(count):
        names = [f"out/{number}" for number in producers(index)]
        text += f"  s{index}:\n    cmd: {command(index, names, f'out/{index}')}\n"
        text += "".join(["    deps:\n"] + [f"    - {name}\n" for name in names]) if names else ""
        text += f"    outs:\n    - out/{index}\n"
    (folder / "dvc.yaml").write_text(text)


def ninja(folder, count):
    text = "rule run\n  command = $cmd\n"
    for index in range(count):
        names = [f"out/{number}" for number in producers(index)]
        text += f"build out/{index}: run {' '.join(names)}\n  cmd = {command(index, names, f'out/{index}')}\n"
    (folder / "build.ninja").write_text(text)


if __name__ == "__main__":
    root, count = Path(sys.argv[1]), int(sys.argv[2])
    for write in [qpipe, snakemake, dvc, ninja]:
        folder = root / write.__name__
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, count)
