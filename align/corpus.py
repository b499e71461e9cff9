"""Documents to pre-train on, read as a stream: text, JSONL and Parquet files, Hub data sets.

Which documents are held out is decided by a hash of each one's text. The choice needs no list and
no second pass, is the same whenever the stream is read again, and puts two copies of a document on
the same side.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from align.recipe.text import Corpus
from annotate.errors import InputError

_ENDINGS = {"text": ".txt", "jsonl": ".jsonl", "parquet": ".parquet"}
# Rows of a Parquet file in memory at once.
_ROWS = 1024
# Bytes of a Parquet file that are read together.
_BUFFER = 1 << 20

T = TypeVar("T")


def corpus_files(corpus: Corpus, root: Path) -> tuple[Path, ...]:
    """The files that a corpus is read from, in their order; none of a Hub data set.

    Args:
        root: what a relative path starts from.

    Raises:
        InputError: there is none.
    """
    if corpus.source == "hub":
        return ()
    path = root / Path(corpus.path).expanduser()
    ending = _ENDINGS[corpus.source]
    files = [path] if path.is_file() else sorted(path.rglob(f"*{ending}"))
    if not files:
        raise InputError(
            f"neither a file nor a folder with {ending} files",
            where=corpus.path,
            remedy="corpus.path starts from the project's folder",
        )
    return tuple(files)


def documents(corpus: Corpus, root: Path) -> Iterator[str]:
    """Every document that is not empty, in the order of the files.

    Raises:
        InputError: a file or a row is not what the corpus says, with its place.
    """
    readers: dict[str, Callable[[Path, Corpus], Iterator[str]]] = {
        "text": _of_text,
        "jsonl": _of_jsonl,
        "parquet": _of_parquet,
    }
    if corpus.source == "hub":
        found = _of_hub(corpus)
    else:
        files = corpus_files(corpus, root)
        found = (text for path in files for text in readers[corpus.source](path, corpus))
    return (text for text in found if text.strip())


def training_documents(corpus: Corpus, root: Path, *, seed: int) -> Iterator[str]:
    """Every document that is not held out, shuffled as far as `corpus.shuffle` allows.

    The order depends on the documents and `seed` alone.
    """
    kept = (text for text in documents(corpus, root) if not held_out(text, corpus.held_out))
    return shuffled(kept, corpus.shuffle, random.Random(seed))


def held_out_documents(corpus: Corpus, root: Path) -> Iterator[str]:
    """Every document that is never trained on."""
    return (text for text in documents(corpus, root) if held_out(text, corpus.held_out))


def held_out(text: str, share: float) -> bool:
    """Whether a document belongs to the share that is held out."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def shuffled(items: Iterator[T], waiting: int, draw: random.Random) -> Iterator[T]:
    """Each next item drawn from `waiting` of them, so that a stream need not be held in memory."""
    held: list[T] = []
    for item in items:
        if len(held) < waiting:
            held.append(item)
            continue
        at = draw.randrange(waiting)
        yield held[at]
        held[at] = item
    draw.shuffle(held)
    yield from held


def _of_text(path: Path, corpus: Corpus) -> Iterator[str]:
    try:
        if corpus.document == "file":
            yield path.read_text(encoding="utf-8")
            return
        with path.open(encoding="utf-8") as lines:
            paragraph: list[str] = []
            for line in lines:
                if corpus.document == "line":
                    yield line.rstrip("\n")
                elif line.strip():
                    paragraph.append(line)
                else:
                    yield "".join(paragraph)
                    paragraph = []
            yield "".join(paragraph)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error.reason})", where=str(path)) from None


def _of_jsonl(path: Path, corpus: Corpus) -> Iterator[str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"not JSON ({error})", where=f"{path}:{number}") from None
            found = row.get(corpus.column) if isinstance(row, dict) else None
            yield _text(found, corpus, f"{path}:{number}")


def _of_parquet(path: Path, corpus: Corpus) -> Iterator[str]:
    try:
        # Without a buffer pyarrow reads whole columns, and ahead of what is asked for.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            if corpus.column not in file.schema_arrow.names:
                raise _no_text(corpus, str(path))
            before = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=[corpus.column]):
                for number, found in enumerate(batch.column(0).to_pylist(), before + 1):
                    yield _text(found, corpus, f"{path}, row {number}")
                before += batch.num_rows
    except pa.ArrowInvalid as error:
        raise InputError(f"not a Parquet file ({error})", where=str(path)) from None


def _of_hub(corpus: Corpus) -> Iterator[str]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        rows = load_dataset(corpus.path, corpus.name, split=corpus.split, streaming=True)
    except (DatasetsError, HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(
            f"the data set cannot be read: {first}",
            where=corpus.path,
            remedy="Check corpus.path, corpus.name and corpus.split",
        ) from None
    for number, row in enumerate(rows, 1):
        yield _text(row.get(corpus.column), corpus, f"{corpus.path}, row {number}")


def _text(found: object, corpus: Corpus, where: str) -> str:
    """What stands in the column, if it is text that can be written down as UTF-8."""
    if not isinstance(found, str):
        raise _no_text(corpus, where)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InputError(
            "the text holds half a character (a lone surrogate)", where=where
        ) from None
    return found


def _no_text(corpus: Corpus, where: str) -> InputError:
    return InputError(
        f"no text under {corpus.column!r}", where=where, remedy="Name the text with corpus.column"
    )
