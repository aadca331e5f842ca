"""Reads exported logs with inspect-ai and prints what it made of them, as JSON.

    python inspect_loader.py FOLDER

Run by an interpreter that has inspect-ai (`make test-exports`).
"""

from __future__ import annotations

import json
import sys
from typing import Any

from inspect_ai.log import (
    list_eval_logs,
    read_eval_log,
    read_eval_log_sample,
    read_eval_log_sample_summaries,
)


def read(info: Any) -> dict[str, object]:
    """Return a log's header, its summaries' number, and its first sample read by itself."""
    header, log = read_eval_log(info, header_only=True), read_eval_log(info)
    assert header.results is not None
    assert log.samples
    first = log.samples[0]
    sample = read_eval_log_sample(info, id=first.id, epoch=first.epoch)
    assert sample.scores is not None
    (score,) = header.results.scores
    return {
        "task": header.eval.task,
        "model": header.eval.model,
        "status": header.status,
        "metrics": {name: metric.value for name, metric in score.metrics.items()},
        "num_samples": len(log.samples),
        "num_summaries": len(read_eval_log_sample_summaries(info)),
        "roles": [message.role for message in sample.messages],
        "completion": sample.output.completion,
        "value": sample.scores["midcourse"].value,
        "metadata": sample.metadata,
    }


def main() -> None:
    """Read every log that inspect finds."""
    logs = [read(info) for info in list_eval_logs(sys.argv[1])]
    sys.stdout.write("\n" + json.dumps(logs) + "\n")


if __name__ == "__main__":
    main()
