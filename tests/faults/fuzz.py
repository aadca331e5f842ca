"""Run a coverage-guided fuzzer over one target: ``fuzz.py TARGET EXECUTIONS FOLDER``.

At most two minutes are spent. New inputs that reach new code go to FOLDER; the kept corpus is only
read. An input that breaks a promise is written to the working directory as ``crash-…`` and ends the
program with an error.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["midcourse"]):
    from fuzz_targets import CORPUS, TARGETS


def main() -> None:
    """Fuzz the named target."""
    name, executions, folder = sys.argv[1:]
    logging.disable()
    # Most of the time of what writes files.
    vars(os)["fsync"] = lambda handle: None
    tempfile.tempdir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    options = [f"-runs={executions}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048"]
    options.append("-max_total_time=120")
    options.append(f"-dict={CORPUS.parent / 'pieces.dict'}")
    # The first folder takes what is found; the others are only read.
    atheris.Setup([sys.argv[0], *options, folder, str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
