"""Empty libraries in place of those of CUDA, so that Python's torch can be imported on a CPU without 3 GB of them.

PyTorch's wheel is linked to cuBLAS, cuDNN and so on, and the loader wants all of them at the start, though on a machine
without a GPU nothing in them is called. Each missing library is made with the symbols that torch's own libraries ask it for,
under the versions that they ask for.
"""

import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

# Of these names, and not from libraries that are there.
CUDA = r"lib(?:cu|nv|nccl)\S*"
SYMBOL = r"(?:cusparseLt|nccl|cuFile|cu[A-Z]|nvshmem)\w*"


def read(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wanted(libraries):
    """Library → version → symbols; the version is empty for symbols that have none, with any library."""
    needed, symbols, plain = set(), defaultdict(lambda: defaultdict(set)), set()
    for library in libraries:
        header = read("objdump", "-p", str(library))
        needed |= set(re.findall(rf"NEEDED\s+({CUDA})", header))
        owner, current = {}, None
        for line in header.splitlines():
            if found := re.match(r"\s+required from (\S+):", line):
                current = found[1]
            elif found := re.match(r"\s+0x\w+ 0x\w+ \d+ (\S+)", line):
                owner[found[1]] = current
        for line in read("nm", "-D", "--undefined-only", "--with-symbol-versions", str(library)).splitlines():
            if found := re.match(r"\s+[Uw] (\w+)@+(\S+)", line):
                if found[2] in owner:
                    symbols[owner[found[2]]][found[2]].add(found[1])
            elif found := re.match(rf"\s+[Uw] ({SYMBOL})$", line):
                plain.add(found[1])
    return needed, symbols, plain


def make(libraries, there, folder):
    """Makes what `libraries` need and the folder `there` does not have."""
    folder.mkdir()
    needed, symbols, plain = wanted(libraries)
    for name in sorted(needed - {path.name for path in there.iterdir()}):
        versions = symbols.get(name, {})
        every = {symbol for names in versions.values() for symbol in names} | plain
        # Those without a version are found in whichever library is loaded first.
        plain = set()
        script = "".join(f"{version} {{ global: {'; '.join(sorted(names))}; }};\n" for version, names in versions.items())
        with tempfile.TemporaryDirectory() as work:
            source, map_file = Path(work, "s.c"), Path(work, "s.map")
            source.write_text("".join(f"void {symbol}(void) {{}}\n" for symbol in sorted(every)))
            map_file.write_text(script)
            options = [f"-Wl,--version-script={map_file}"] if script else []
            command = ["g++", "-x", "c", "-w", "-shared", "-fPIC", "-fno-builtin", str(source), "-o", str(folder / name)]
            subprocess.run([*command, f"-Wl,-soname,{name}", *options], check=True)
