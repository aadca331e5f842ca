"""Run by an interpreter that has vLLM: hands commands to vLLM's own parser and configuration.

Reads a JSON list of lists of arguments, writes for each the model length that vLLM settles on, or
what it says against it. It loads no weights.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from typing import Any


def settle(arguments: list[str]) -> int | str:
    """Return the context length of a server, or why there is none."""
    from vllm.engine.arg_utils import AsyncEngineArgs  # type: ignore[import-not-found]
    from vllm.entrypoints.launchers import cli_args  # type: ignore[import-not-found]
    from vllm.utils.argparse_utils import (  # type: ignore[import-not-found]
        FlexibleArgumentParser,
    )

    parser = cli_args.make_arg_parser(FlexibleArgumentParser())
    try:
        parsed = parser.parse_args(arguments)
        cli_args.validate_parsed_serve_args(parsed)
        model: Any = AsyncEngineArgs.from_cli_args(parsed).create_model_config()
    except (SystemExit, Exception) as error:  # noqa: BLE001 - whatever it is, it is reported
        return f"{type(error).__name__}: {error}"
    return int(model.max_model_len)


def main() -> None:
    """Answer for every command; what vLLM prints goes to the standard error."""
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with redirect_stdout(sys.stderr):
        settled = [settle(arguments) for arguments in json.load(sys.stdin)]
    json.dump(settled, sys.stdout)


if __name__ == "__main__":
    main()
