"""Measure how long commands take to show their help, beside an empty Python program.

    python docs/bench/startup.py [ROUNDS]

Prints medians of ROUNDS rounds (default 20, after one of warm-up) in which the commands take turns,
and each median as a multiple of `python -c pass`. Uses the `nst` beside the Python that runs it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from nst.infer.diagnostics.machine import read_machine

NST = str(Path(sys.executable).with_name("nst"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "nst --version": [NST, "--version"],
    "nst --help": [NST, "--help"],
    "nst image --help": [NST, "image", "--help"],
    "nst train --help": [NST, "train", "--help"],
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - started)
    machine = read_machine()
    print(f"{machine.line}; Python {machine.python}; n = {rounds}, one round of warm-up\n")
    print("| command | seconds, median | times `python -c pass` |\n|---|---:|---:|")
    empty = statistics.median(seconds["python -c pass"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| `{name}` | {median:.3f} | {median / empty:.1f} |")


if __name__ == "__main__":
    main()
