"""Plain text files: one document a file, a long one in pieces cut at the ends of paragraphs. Small files share a shard."""

import io
import logging
import re
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from data_catalog.errors import UserError
from pipeline.config import Text
from pipeline.location import Place, is_local
from pipeline.source.documents import Document, Fault, Input, Shard, encodable, unit_hash
from pipeline.source.files import (
    Listed,
    describe,
    find_files,
    is_below,
    left_for_corpus,
    shard_name,
)
from pipeline.source.lines import damage, open_unpacked

logger = logging.getLogger(__name__)

SHARD_FILES = 256  # of a shard, on average: where one ends is decided by the hash of a file's name
SHARD_BYTES = 16 * 2**20  # and one ends at the latest after the file that reaches so many
_BLOCK_BYTES = 2**18
_ENDS = tuple(
    map(re.compile, (r"\n\s*\n", r"[.!?…][\"')\]”’»]*\s|[。！？]", r"\n", r"\s"))
)  # the best place to cut first
_SPACE = _ENDS[-1]


def suffixes(source: Text) -> tuple[str, ...]:
    """How names of its files end: as they are, or packed by gzip."""
    return (*source.suffixes, *(f"{suffix}.gz" for suffix in source.suffixes))


def plan(source: Text, held_out: Sequence[Place] = ()) -> list[Shard]:
    """Files in the order of their paths, some hundreds a shard. A new file changes the shard it falls into, and not those after it.

    Files at or below a `held_out` path (the targets') are left out, and so are hidden files and folders.

    Raises:
        UserError: nothing is at the path, or no text file, or targets hold them all.
    """
    root, files = find_text(source.path, suffixes(source), "source.path")
    kept = left_for_corpus(source.path, files, root, held_out, logger.info)
    return [
        _shard(root, group, suffixes(source))
        for group in _groups([describe(root, name, kept[name]) for name in kept])
    ]


def find_text(path: Place, endings: Sequence[str], name: str) -> tuple[Place, Listed]:
    """As `find_files`, but for what is hidden: names that begin with a dot are drafts and the inner life of programs.

    Raises:
        UserError: nothing is at the path, or no text file.
    """
    if is_local(path) and path.is_file():
        path = path.resolve()  # a link that was named is meant
    root, files = find_files(path, endings, name, "plain text")
    shown = {
        file: info
        for file, info in files.items()
        if not any(part.startswith(".") for part in file.split("/"))
    }
    if not shown:
        raise UserError(
            f"{name} {path}: all its {len(files)} text files are hidden, or in hidden folders; rename or move some"
        )
    return root, shown


def _groups(entries: Iterable[Input]) -> Iterator[list[Input]]:
    group: list[Input] = []
    for entry in entries:
        group.append(entry)
        if (
            unit_hash("end of shard", entry.path) < 1 / SHARD_FILES
            or sum(file.bytes for file in group) >= SHARD_BYTES
        ):
            yield group
            group = []
    if group:
        yield group


def _shard(root: Place, group: Sequence[Input], endings: Sequence[str]) -> Shard:
    return Shard(
        name=shard_name(group[0].path, endings),
        kind="text",
        root=root,
        key=group[0].path,
        inputs=tuple(group),
    )


def read(shard: Shard, piece_characters: int) -> Iterator[Document | Fault]:
    """Every document of the shard's files, in order; see `read_file`."""
    for entry in shard.inputs:
        yield from read_file(shard.root, entry.path, piece_characters)


def read_file(root: Place, name: str, piece_characters: int) -> Iterator[Document | Fault]:
    """The pieces of one text file below `root`, each of at most `piece_characters`, and what of it cannot be read as faults.

    `doc_id` is the file's name, and from the second piece on `NAME#2`, ...; `source` is the first folder of the name, or of a file that
    is in none its name without the ending. Line ends become `\\n`; blank lines around a piece go. It has to be UTF-8, with or without
    a byte order mark: at the first byte that is not, or is NUL, the file ends with a fault, and only whole pieces before it are kept.
    A stretch of more than `piece_characters` without white space is left out, as a fault. Memory: a few pieces, and a block of 256 KiB.

    Raises:
        OSError: the network failed, not the file: read again.
    """
    if is_local(root) and not is_below(root / name, [root]):
        yield Fault(
            name,
            None,
            "outside_folder",
            "a link to a place outside the folder that is read; put the file itself here",
        )
        return
    label = encodable(name) or name
    source = label.partition("/")[0] if "/" in label else label.partition(".")[0] or label
    number = 0
    for piece in pieces(_blocks(root / name, label), label, piece_characters):
        if isinstance(piece, Fault):
            yield piece
            continue
        number += 1
        yield Document(
            doc_id=label if number == 1 else f"{label}#{number}", text=piece, source=source
        )


def pieces(blocks: Iterable[str | Fault], label: str, most: int) -> Iterator[str | Fault]:
    """Cut a text, which comes in blocks, into pieces of at most `most` characters; a fault among the blocks ends it.

    A piece ends at the last end of a paragraph in its second half, else of a sentence, a line or a word. `label` names the file in faults.
    """
    text, number, unbroken, given = "", 0, 0, False
    for block in chain(blocks, (None,)):
        if isinstance(block, Fault):
            yield block  # the piece that it is in is not whole
            return
        text += block or ""
        while text:
            if unbroken:
                space = _SPACE.search(text)
                unbroken += space.start() if space else len(text)
                text = text[space.end() :] if space else ""
                if not space:
                    break
                yield _unbroken(label, number, unbroken, most)
                unbroken, given = 0, True
            if len(text) <= 2 * most and block is not None:
                break  # how long the last pieces are to be is known at the end
            end = (
                len(text) if len(text) <= most else _end(text, min(most, len(text) * 5 // 8), most)
            )
            if end and text[:end].strip():
                yield text[:end].strip("\n").rstrip()
                number, given = number + 1, True
            unbroken, end = (0, end) if end else (most, most)
            text = text[end:]
    if unbroken:
        yield _unbroken(label, number, unbroken, most)
    elif not given:
        yield Fault(label, None, "empty_text", "the file holds nothing but white space")


def _end(text: str, likely: int, most: int) -> int:
    """Where to cut: up to `likely` if that can be, up to `most` at the latest; 0 if there is no white space."""
    for pattern, first in (*((pattern, likely // 2) for pattern in _ENDS), (_SPACE, 0)):
        if end := max((found.end() for found in pattern.finditer(text, first, likely)), default=0):
            return end
    late = _SPACE.search(text, likely, most)
    return late.end() if late else 0


def _unbroken(label: str, number: int, length: int, most: int) -> Fault:
    detail = f"{length} characters without white space after piece {number}, the limit is {most} (source.piece_characters); left out"
    return Fault(label, number, "no_white_space", detail, characters=length)


def _blocks(path: Place, label: str) -> Iterator[str | Fault]:
    """The file's text as it is decoded; a fault, at last, if it cannot be read to its end."""
    decoder = io.IncrementalNewlineDecoder(getincrementaldecoder("utf-8-sig")(), translate=True)
    position, block = 0, b" "
    try:
        with open_unpacked(path) as file:
            if file is None:
                yield Fault(label, None, "empty_file", "the file has no bytes")
                return
            read = getattr(
                file, "read1", file.read
            )  # gives what comes before the damage of a gzip file
            while block:
                block = read(_BLOCK_BYTES)
                data = block.partition(b"\0")[0]
                yield decoder.decode(data, final=not block)
                position += len(data)
                if len(data) < len(block):
                    yield Fault(
                        label,
                        None,
                        "not_text",
                        f"byte {position} is NUL: a binary file, or not UTF-8; save it as UTF-8",
                    )
                    return
    except UnicodeDecodeError as error:
        at = position + len(data) - (len(error.object) - error.start)
        yield Fault(label, None, "bad_utf8", f"byte {at}: {error.reason}; save the file as UTF-8")
    except (EOFError, OSError, zlib.error) as error:
        yield damage(error, path, label, f"byte {position}")
