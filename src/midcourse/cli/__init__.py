"""The command line: argument parsing, and one line for every error a user can fix.

Each stage is a verb; a verb makes what it needs and keeps what is there. Exit codes: 0 done, 1
failed, 2 wrong usage, 130 and 143 interrupted by SIGINT and SIGTERM.
"""

from midcourse.cli import (
    compare,
    credit,
    data,
    doctor,
    evidence,
    experiments,
    handover,
    init,
    lab,
    look,
    show,
    stages,
    start,
    view,
    watch,
)
from midcourse.cli.app import app
from midcourse.cli.entry import main

#: The modules add their verbs to `app` when they are imported.
__all__ = [
    "app",
    "compare",
    "credit",
    "data",
    "doctor",
    "evidence",
    "experiments",
    "handover",
    "init",
    "lab",
    "look",
    "main",
    "show",
    "stages",
    "start",
    "view",
    "watch",
]
