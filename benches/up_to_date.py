"""Wall time of an up-to-date run beside an empty process, alternately, so that both see the same machine.

    python3 benches/up_to_date.py target/release/qpipe pipelines/quickstart.toml

The pipeline must have run before. Prints medians and least times in milliseconds.
"""

import statistics
import subprocess
import sys
import time

program, pipeline = sys.argv[1:3]
commands = {
    "empty process (true)": ["true"],
    "qpipe --version": [program, "--version"],
    "qpipe run, up to date": [program, "run", pipeline, "--quiet"],
    "qpipe plan": [program, "plan", pipeline],
}
times = {name: [] for name in commands}
for _ in range(40):
    for name, command in commands.items():
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times[name].append(1e3 * (time.perf_counter() - start))
for name, series in times.items():
    print(f"{name:24} median {statistics.median(series):6.1f} ms   least {min(series):6.1f} ms")
