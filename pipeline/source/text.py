"""Plain text files: one document per file, or several for a long one. Small files share a shard."""

import io
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.location import File, Place, file_below, is_local
from pipeline.source.config import Text
from pipeline.source.cut_text import cut_text
from pipeline.source.documents import Document, Fault, Input, Inventory, Shard, unit_hash
from pipeline.source.files import (
    Found,
    describe_file,
    find_files,
    is_below,
    shard_name,
    without_reserved,
)
from pipeline.source.head import HEAD_BYTES, Head, head_of_records, whole_lines
from pipeline.source.interface import Source
from pipeline.source.lines import TEXT_BYTES
from pipeline.source.unpack import (
    COMPRESSIONS,
    PackedFile,
    damage_fault,
    open_unpacked,
    other_encoding,
)

SHARD_FILES = 256  # mean number of files per shard
SHARD_BYTES = 16 * 2**20  # a shard ends with the file that reaches this size
_BLOCK_BYTES = 2**18
# Text compresses to between a third and a hundredth of its size, and a bomb to a thousandth.
MAXIMUM_EXPANSION = 200


class TextSource(Source[Text]):
    """A plain text file, or all such files below a folder or URL."""

    def plan(self) -> Inventory:
        """Return shards of some hundred files, in the order of their paths.

        A hash of a file's name decides whether a shard ends with it, so that a new file changes
        its own shard but not those after it. Files that belong to targets are left out.

        Raises:
            UserError: There is nothing at the path, no text file, or targets have them all.
        """
        path, endings = self.section.path, text_suffixes(self.section)
        found = find_text(path, endings, "source.path")
        found = without_reserved(path, found, self.reservations.paths)
        entries = [describe_file(found.root, file) for file in found.files]
        shards = [_shard(found.root, group, endings) for group in _groups(entries)]
        return Inventory(shards, found.notes())

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every document of the shard's files, in order."""
        for entry in shard.inputs:
            yield from read_text(shard.root, entry.name, entry.path, self.section.piece_characters)

    def choices(self) -> list[object]:
        """Return the maximum length of a document."""
        return [self.section.piece_characters]

    def read_head(self, shard: Shard) -> Head:
        """Return the pieces of the first files. The last of these files may be read in part."""
        maximum = self.section.piece_characters
        records: list[Document | Fault] = []
        opened, seen = 0, 0.0
        for entry in shard.inputs:
            if opened >= HEAD_BYTES:
                break
            file = file_below(shard.root, entry.name)
            left = HEAD_BYTES - opened
            beginning, share = whole_lines(file, entry.bytes, left, separators=b" \n")
            records += (
                read_text(shard.root, entry.name, entry.path, maximum)
                if share == 1
                else _pieces(beginning, entry.path, maximum)
            )
            seen += share * entry.bytes
            opened += entry.bytes
        return head_of_records(records, seen / self.size(shard) if self.size(shard) else 1.0)


def text_suffixes(source: Text) -> tuple[str, ...]:
    """Return the endings of the names of text files, plain and compressed."""
    return (
        *source.suffixes,
        *(f"{suffix}{packed}" for packed in COMPRESSIONS[1:] for suffix in source.suffixes),
    )


def find_text(path: Place, endings: Sequence[str], key: str) -> Found:
    """Find the text files at or below `path`.

    `key` is the config key of the path, for error messages.

    Raises:
        UserError: There is nothing at the path, or no text file.
    """
    if isinstance(path, Path) and path.is_file():
        path = path.resolve()  # a link that is named itself is followed
    return find_files(path, endings, key, "plain text", inside=True)


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
    first = group[0].path
    name = shard_name(first, endings)
    return Shard(name=name, kind="text", root=root, key=first, inputs=tuple(group))


def read_text(
    root: Place, name: str, label: str, piece_characters: int
) -> Iterator[Document | Fault]:
    """Yield one text file as documents of at most `piece_characters`, and its faults.

    `doc_id` is the file's label, followed by `#2`, `#3` and so on for the further pieces. `source`
    is the first folder of the label, or the label without its ending for a file in no folder. Line
    ends become `\\n`, and blank lines around a piece are removed.

    The text has to be UTF-8, with or without a byte order mark. At the first byte that is not, or
    is NUL, the file ends with a fault, and only whole pieces before it are kept. A stretch of more
    than `piece_characters` without white space is left out, as a fault. A packed file that expands
    to more than `MAXIMUM_EXPANSION` times its size ends with a fault once it has given
    `TEXT_BYTES`. Memory holds a few pieces and a block of 256 KiB.

    Raises:
        OSError: The network failed. Reading again may help.
    """
    file = file_below(root, name)
    if is_local(root) and not is_below(file, [root]):
        detail = (
            "a link to a place outside of the folder that is read. Put the file itself here, for "
            "example with cp -L"
        )
        yield Fault(label, None, "outside_folder", detail)
        return
    yield from _pieces(file, label, piece_characters)


def _pieces(file: File, label: str, piece_characters: int) -> Iterator[Document | Fault]:
    source = label.partition("/")[0] if "/" in label else label.partition(".")[0] or label
    number = 0
    for piece in cut_text(_blocks(file, label), label, piece_characters):
        if isinstance(piece, Fault):
            yield piece
            continue
        number += 1
        doc_id = label if number == 1 else f"{label}#{number}"
        yield Document(doc_id=doc_id, text=piece, source=source)


def _blocks(path: File, label: str) -> Iterator[str | Fault]:
    """Yield the file's text as it is decoded, and a fault if it cannot be read to its end."""
    decoder = io.IncrementalNewlineDecoder(getincrementaldecoder("utf-8-sig")(), translate=True)
    position, block = 0, b" "
    try:
        with open_unpacked(path) as file:
            if file is None:
                yield Fault(label, None, "empty_file", "the file has no bytes")
                return
            stored = file.stored_bytes if isinstance(file, PackedFile) else None
            maximum = (
                float("inf") if stored is None else max(TEXT_BYTES, MAXIMUM_EXPANSION * stored)
            )
            # `read1` gives the bytes before the damage of a gzip file.
            read = getattr(file, "read1", file.read)
            while block:
                block = read(_BLOCK_BYTES)
                if position == 0 and (encoding := other_encoding(block)):
                    detail = f"the file is {encoding}. Save it as UTF-8"
                    yield Fault(label, None, "bad_utf8", detail)
                    return
                data = block.partition(b"\0")[0]
                try:
                    decoded = decoder.decode(data, final=not block)
                except UnicodeDecodeError as error:
                    valid = len(data) - (len(error.object) - error.start)
                    yield decoder.decode(data[: max(valid, 0)])
                    detail = f"byte {position + valid}: {error.reason}. Save the file as UTF-8"
                    yield Fault(label, None, "bad_utf8", detail)
                    return
                yield decoded
                position += len(data)
                if position > maximum:
                    detail = (
                        f"expands to more than {MAXIMUM_EXPANSION} times its size. If it is no "
                        "gzip bomb, unpack it"
                    )
                    yield Fault(label, None, "too_long", detail)
                    return
                if len(data) < len(block):
                    detail = (
                        f"byte {position} is NUL: a binary file, or not UTF-8; save it as UTF-8"
                    )
                    yield Fault(label, None, "not_text", detail)
                    return
    except (EOFError, OSError, zlib.error) as error:
        yield damage_fault(error, path, label, f"byte {position}")
