"""Writes a comparison of runs, and says it in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from midcourse.printable import printable
from midcourse.report.html import render_html
from midcourse.report.markdown import render_markdown
from midcourse.report.page import Page, Sentences
from midcourse.store.files import make_folder, write_durably, write_json_atomic
from midcourse.table import Table


def write_comparison(folder: Path, page: Page, data: Mapping[str, Any]) -> None:
    """Write ``compare.html``, ``compare.md`` with its figures, and ``compare.json``."""
    make_folder(folder)
    texts = {"compare.html": render_html(page), "compare.md": render_markdown(page)}
    texts |= {f"{drawing.name}.svg": drawing.svg for drawing in page.drawings}
    for name, text in texts.items():
        write_durably(folder / name, text.encode())
    write_json_atomic(folder / "compare.json", data)


def say_comparison(page: Page, console: Console) -> None:
    """Print the page's tables and sentences."""
    for section in page.shown:
        for block in section.blocks:
            if isinstance(block, Table):
                console.print(block.rich())
            elif isinstance(block, Sentences):
                console.print(Text(f"\n{printable(block.title)}", style="bold"))
                for _, said in block.items:
                    console.print(Text(printable(f"  {said}")))
            elif isinstance(block, str):
                console.print(Text(printable(block)))
