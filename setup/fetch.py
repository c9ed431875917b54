#!/usr/bin/env python3
"""Fetches what qpipe needs into .deps: python3 setup/fetch.py [native] [data] [python] [pytorch] [tensorrt-rtx]
                                                             [libclang] [keras] [paddle] [ultralytics] [modelopt]

Each component is fetched once, checked against pinned SHA-256 values, unpacked beside its place and
moved there when it is whole. A component whose pins did not change is not looked at again.
Only the standard library is used: this runs before anything is installed.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import stubs

PROJECT = Path(__file__).resolve().parent.parent
SETUP = PROJECT / "setup"
DEPS = Path(os.environ.get("QPIPE_DEPS") or PROJECT / ".deps")

# The Debian package holds the files as their authors publish them; the pins are on them, so that
# any release of the package will do.
FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}

# Wheels of another Python than this one: only the libraries in them are used.
ANY_PYTHON = [
    "--platform", "manylinux_2_28_x86_64",
    "--platform", "manylinux_2_27_x86_64",
    "--platform", "manylinux_2_25_x86_64",
    "--platform", "manylinux2014_x86_64",
    "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
]


class Failure(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, message, help):
        super().__init__(message)
        self.help = help


def check_machine():
    if sys.version_info < (3, 8):
        raise Failure(
            f"Python {platform.python_version()} is too old: 3.8 or later is needed",
            "run it with another one: make deps PYTHON=python3.11",
        )
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Failure(
            f"there are no pinned libraries for {platform.system()} on {platform.machine()}, only for Linux on x86_64",
            "name your own: LIBTORCH=/path/to/libtorch (2.11) and ORT_DYLIB_PATH=/path/to/libonnxruntime.so",
        )


def run(command, what, help):
    """Runs a program; its output is shown only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        tail = "\n".join("    " + line for line in done.stdout.strip().splitlines()[-8:])
        raise Failure(f"{what}: `{command[0]}` ended with code {done.returncode}\n{tail}", help)
    return done.stdout


def pip(folder, requirements, *options):
    """Unpacks the wheels that a file of pinned requirements names into `folder`."""
    python = [sys.executable, "-m", "pip"]
    if subprocess.run([*python, "--version"], capture_output=True).returncode != 0:
        raise Failure(
            f"{sys.executable} has no pip", "install it: apt-get install python3-pip (or python3 -m ensurepip)"
        )
    command = [
        *python, "install", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile",
        "--disable-pip-version-check", "--no-input", "--retries", "2", "--root-user-action", "ignore",
        "--target", str(folder), *options, "-r", str(requirements),
    ]
    # Old versions do not know the option; the rest means the same to them.
    if "--root-user-action" not in subprocess.run([*python, "install", "--help"], capture_output=True, text=True).stdout:
        at = command.index("--root-user-action")
        del command[at : at + 2]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    tail = "\n".join("    " + line for line in lines[-6:])
    where = f"{requirements.name}:"
    if "DO NOT MATCH THE HASHES" in done.stdout:
        raise Failure(
            f"{where} a package does not have the pinned SHA-256\n{tail}",
            "the download is damaged or not what the project was tested with: `pip cache purge`, then try again; "
            "if it stays, do not use it",
        )
    if any(word in done.stdout for word in ("NewConnectionError", "Temporary failure", "Connection refused",
                                            "ConnectTimeout", "Network is unreachable", "Max retries")):
        raise Failure(
            f"{where} the package index cannot be reached\n{tail}",
            "check the network and pip's settings (`pip config list`), then run `make deps` again; what is fetched already stays",
        )
    if "No matching distribution" in done.stdout:
        raise Failure(
            f"{where} no package fits this Python ({platform.python_version()})\n{tail}",
            "use Python 3.11, 3.12 or 3.13: make deps-test PYTHON=python3.12",
        )
    if "No space left" in done.stdout:
        raise Failure(f"{where} the disk is full\n{tail}", "2 GB must be free in the project's folder")
    raise Failure(f"{where} pip ended with code {done.returncode}\n{tail}", "see pip's message above")


def native(folder):
    pip(folder, SETUP / "native.txt", *ANY_PYTHON)
    # Headers and libraries are what is used; the rest is Python's.
    for name in ("torch/test", "torch/_inductor", "functorch", "torchgen", "torch/distributed", "torch/testing"):
        shutil.rmtree(folder / name, ignore_errors=True)


def python(folder):
    if not (3, 11) <= sys.version_info < (3, 14):
        raise Failure(
            f"the tests compare with Python packages for 3.11 to 3.13, this is Python {platform.python_version()}",
            "name another one: make test PYTHON=python3.12",
        )
    pip(folder, SETUP / "python.txt")


def pytorch(folder):
    pip(folder, SETUP / "pytorch.txt")
    cuda = DEPS / "native" / "nvidia" / "cu13" / "lib"
    if not cuda.is_dir():
        raise Failure(f"{cuda} is not there", "fetch it first: python3 setup/fetch.py native pytorch")
    stubs.make(sorted((folder / "torch" / "lib").glob("*.so")), cuda, folder / "stubs")


def keras(folder):
    pip(folder, SETUP / "keras.txt")


def paddle(folder):
    if sys.version_info[:2] != (3, 11):
        raise Failure(
            f"Paddle's exporter is pinned for Python 3.11, this is Python {platform.python_version()}",
            "name it: make test-exporters PYTHON=python3.11",
        )
    pip(folder, SETUP / "paddle.txt")


def ultralytics(folder):
    pip(folder, SETUP / "ultralytics.txt")


def modelopt(folder):
    pip(folder, SETUP / "modelopt.txt")


def tensorrt_rtx(folder):
    pip(folder / "wheel", SETUP / "tensorrt-rtx.txt", *ANY_PYTHON)
    for library in (folder / "wheel").rglob("lib*.so*"):
        shutil.move(str(library), folder / library.name)
    shutil.rmtree(folder / "wheel")


def libclang(folder):
    pip(folder / "wheel", SETUP / "libclang.txt", "--platform", "manylinux2010_x86_64")
    for pattern in ("libclang.so", "LICENSE.TXT"):
        for file in (folder / "wheel").rglob(pattern):
            shutil.move(str(file), folder / file.name)
    shutil.rmtree(folder / "wheel")


def data(folder):
    target = folder / "fashion-mnist"
    target.mkdir(parents=True)
    package = "dataset-fashion-mnist"
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Failure(
                f"`{program}` is not there: Fashion-MNIST is taken from Debian's package {package}",
                f"put {', '.join(FASHION_MNIST)} into {DEPS / 'data' / 'fashion-mnist'} yourself",
            )
    with tempfile.TemporaryDirectory(dir=folder) as work:
        download = f"cd {work} && apt-get download -q {package}"
        if subprocess.run(["sh", "-c", download], capture_output=True).returncode != 0:
            # The machine's package lists are empty or old: fetch own ones, which needs no root.
            os.makedirs(f"{work}/lists/partial")
            os.makedirs(f"{work}/cache/archives/partial")
            own = f"-o Dir::State::lists={work}/lists -o Dir::Cache={work}/cache -o APT::Sandbox::User=root"
            run(
                ["sh", "-c", f"cd {work} && apt-get {own} update -q && apt-get {own} download -q {package}"],
                f"Debian's package {package} cannot be fetched",
                "check the network and /etc/apt/sources.list (on Ubuntu the component `universe` is needed), then run `make deps` again",
            )
        packages = list(Path(work).glob("*.deb"))
        if len(packages) != 1:
            raise Failure(f"apt-get left {len(packages)} files for {package}", "run `make deps` again")
        run(["dpkg-deb", "-x", str(packages[0]), f"{work}/x"], f"{packages[0].name} is damaged", "run `make deps` again")
        for name, expected in FASHION_MNIST.items():
            found = list(Path(work, "x").rglob(name))
            if not found:
                raise Failure(f"{packages[0].name} has no {name}", "the package changed: report it")
            digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
            if digest != expected:
                raise Failure(
                    f"{name} has the SHA-256 {digest}, pinned is {expected}",
                    "the download is damaged or changed: try again; if it stays, do not use it",
                )
            shutil.copy(found[0], target / name)
        for copyright in Path(work, "x").rglob("copyright"):
            shutil.copy(copyright, target / "copyright")


# Component: what makes it, what its pins are, what is fetched, and the variables that make it unnecessary.
COMPONENTS = {
    "native": (native, "native.txt", "libtorch 2.11.0 and ONNX Runtime 1.32.0 (570 MB)", ("LIBTORCH", "ORT_DYLIB_PATH")),
    "data": (data, None, "Fashion-MNIST (31 MB)", ()),
    "python": (python, "python.txt", "Python's onnx and onnxruntime, for the tests (65 MB)", ()),
    "pytorch": (pytorch, "pytorch.txt", "PyTorch and torchvision, for the tests (540 MB)", ()),
    "keras": (keras, "keras.txt", "Keras on TensorFlow, and tf2onnx (optional, 300 MB)", ()),
    "paddle": (paddle, "paddle.txt", "Paddle and its exporter (optional, 220 MB)", ()),
    "ultralytics": (ultralytics, "ultralytics.txt", "Ultralytics' networks (optional, 210 MB)", ()),
    "modelopt": (modelopt, "modelopt.txt", "NVIDIA's ModelOpt (optional, 75 MB)", ()),
    "tensorrt-rtx": (tensorrt_rtx, "tensorrt-rtx.txt", "TensorRT-RTX (optional)", ("TENSORRT_RTX_DIR",)),
    "libclang": (libclang, "libclang.txt", "libclang, to build for TensorRT-RTX (optional, 25 MB)", ("LIBCLANG_PATH",)),
}


# Components with compiled parts for the Python that runs this.
PYTHONS = ("python", "pytorch", "keras", "paddle", "ultralytics", "modelopt")


def stamp_of(name):
    pins = COMPONENTS[name][1]
    text = (SETUP / pins).read_text() if pins else json.dumps(FASHION_MNIST, sort_keys=True)
    # Python packages with compiled parts belong to one Python.
    version = "%d.%d" % sys.version_info[:2] if name in PYTHONS else ""
    return hashlib.sha256((text + version).encode()).hexdigest()


def fetch(name):
    make, _, what, variables = COMPONENTS[name]
    if variables and all(os.environ.get(variable) for variable in variables):
        print(f"{name}: your own ({', '.join(f'{v}={os.environ[v]}' for v in variables)})")
        return
    place, stamp = DEPS / name, DEPS / f"{name}.stamp"
    expected = stamp_of(name)
    if place.is_dir() and stamp.is_file() and stamp.read_text().strip() == expected:
        print(f"{name}: there")
        return
    print(f"{name}: fetching {what} …", flush=True)
    DEPS.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that the move is a rename; a killed run leaves only this behind.
    for old in DEPS.glob(f".{name}.*"):
        shutil.rmtree(old, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=DEPS))
    try:
        make(scratch)
        stamp.unlink(missing_ok=True)
        if place.exists():
            shutil.rmtree(place)
        scratch.chmod(0o755)
        scratch.rename(place)
        stamp.write_text(expected + "\n")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{name}: done")


def main(arguments):
    names = arguments or ["native", "data"]
    unknown = [name for name in names if name not in COMPONENTS]
    if unknown:
        print(f"error: no component `{unknown[0]}`; there are: {', '.join(COMPONENTS)}", file=sys.stderr)
        return 2
    try:
        check_machine()
        for name in names:
            fetch(name)
    except Failure as failure:
        print(f"error: {failure}\n help: {failure.help}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}\n help: the folder {DEPS} must be writable, with 2 GB free", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
