"""Plain text files: one document per file, or several for a long one. Small files share a shard."""

import io
import logging
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence

from data_catalog.errors import UserError
from pipeline.location import Place, is_local
from pipeline.source.config import Text
from pipeline.source.cut_text import cut_text
from pipeline.source.documents import Document, Fault, Input, Shard, encodable, unit_hash
from pipeline.source.files import (
    Listing,
    describe_file,
    find_files,
    is_below,
    shard_name,
    without_reserved,
)
from pipeline.source.head import HEAD_BYTES, Head, read_beginning
from pipeline.source.interface import Source
from pipeline.source.lines import TEXT_BYTES, damage_fault, open_unpacked

logger = logging.getLogger(__name__)

SHARD_FILES = 256  # mean number of files per shard
SHARD_BYTES = 16 * 2**20  # a shard ends with the file that reaches this size
_BLOCK_BYTES = 2**18
# Text compresses to between a third and a hundredth of its size, and a gzip bomb to a thousandth.
MAXIMUM_EXPANSION = 200


class TextSource(Source[Text]):
    """A plain text file, or all such files below a folder or URL."""

    def plan(self) -> list[Shard]:
        """Return shards of some hundred files, in the order of their paths.

        A hash of a file's name decides whether a shard ends with it, so that a new file changes
        its own shard but not those after it. Hidden files, and those that belong to targets, are
        left out.

        Raises:
            UserError: There is nothing at the path, no text file, or targets have them all.
        """
        path, endings = self.section.path, text_suffixes(self.section)
        root, files = find_text(path, endings, "source.path")
        kept = without_reserved(path, files, root, self.reservations.paths, logger.info)
        entries = [describe_file(root, name, kept[name]) for name in kept]
        return [_shard(root, group, endings) for group in _groups(entries)]

    def read(self, shard: Shard) -> Iterator[Document | Fault]:
        """Yield every document of the shard's files, in order."""
        for entry in shard.inputs:
            yield from read_text(shard.root, entry.path, self.section.piece_characters)

    def choices(self) -> list[object]:
        """Return the maximum length of a document."""
        return [self.section.piece_characters]

    def read_head(self, shard: Shard) -> Head:
        """Return the pieces of the first files. The last of these files may be read in part.

        A file that cannot be read counts as a record without text.
        """
        maximum = self.section.piece_characters
        texts: list[str] = []
        records, opened, seen = 0.0, 0, 0
        for file in shard.inputs:
            if opened >= HEAD_BYTES:
                break
            left = HEAD_BYTES - opened
            beginning, is_whole = read_beginning(shard.root / file.path, left)
            pieces = [
                piece
                for piece in cut_text([beginning], file.path, maximum)
                if isinstance(piece, str)
            ]
            texts += pieces
            records += max(len(pieces), 1) if is_whole else len(beginning) / maximum
            seen += file.bytes if is_whole else min(left, file.bytes)
            opened += file.bytes
        share = seen / max(self.size(shard), 1)
        total = records / share if share else records
        return Head(texts, [""] * len(texts), total, share or 1.0)


def text_suffixes(source: Text) -> tuple[str, ...]:
    """Return the endings of the names of text files, plain and gzip."""
    return (*source.suffixes, *(f"{suffix}.gz" for suffix in source.suffixes))


def find_text(path: Place, endings: Sequence[str], key: str) -> tuple[Place, Listing]:
    """Find the text files at or below `path`, without hidden files and folders.

    `key` is the config key of the path, for error messages.

    Raises:
        UserError: There is nothing at the path, or no text file that is not hidden.
    """
    if is_local(path) and path.is_file():
        path = path.resolve()  # a link that is named itself is followed
    root, files = find_files(path, endings, key, "plain text")
    visible = {
        file: info
        for file, info in files.items()
        if not any(part.startswith(".") for part in file.split("/"))
    }
    if not visible:
        raise UserError(
            f"{key} {path}: all of its {len(files)} text files are hidden or in hidden folders. "
            "Rename or move some."
        )
    return root, visible


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


def read_text(root: Place, name: str, piece_characters: int) -> Iterator[Document | Fault]:
    """Yield one text file as documents of at most `piece_characters`, and its faults.

    `doc_id` is the file's name, followed by `#2`, `#3` and so on for the further pieces. `source`
    is the first folder of the name, or the name without its ending for a file in no folder. Line
    ends become `\\n`, and blank lines around a piece are removed.

    The text has to be UTF-8, with or without a byte order mark. At the first byte that is not, or
    is NUL, the file ends with a fault, and only whole pieces before it are kept. A stretch of more
    than `piece_characters` without white space is left out, as a fault. A gzip file that expands to
    more than `MAXIMUM_EXPANSION` times its size ends with a fault once it has given `TEXT_BYTES`.
    Memory holds a few pieces and a block of 256 KiB.

    Raises:
        OSError: The network failed. Reading again may help.
    """
    if is_local(root) and not is_below(root / name, [root]):
        detail = "a link to a place outside the folder that is read; put the file itself here"
        yield Fault(name, None, "outside_folder", detail)
        return
    label = encodable(name) or name
    source = label.partition("/")[0] if "/" in label else label.partition(".")[0] or label
    number = 0
    for piece in cut_text(_blocks(root / name, label), label, piece_characters):
        if isinstance(piece, Fault):
            yield piece
            continue
        number += 1
        doc_id = label if number == 1 else f"{label}#{number}"
        yield Document(doc_id=doc_id, text=piece, source=source)


def _blocks(path: Place, label: str) -> Iterator[str | Fault]:
    """Yield the file's text as it is decoded, and a fault if it cannot be read to its end."""
    decoder = io.IncrementalNewlineDecoder(getincrementaldecoder("utf-8-sig")(), translate=True)
    position, block = 0, b" "
    try:
        with open_unpacked(path) as file:
            if file is None:
                yield Fault(label, None, "empty_file", "the file has no bytes")
                return
            is_packed = path.name.lower().endswith(".gz")
            size = path.stat().st_size if is_packed else 0
            maximum = max(TEXT_BYTES, MAXIMUM_EXPANSION * size) if is_packed else float("inf")
            # `read1` gives the bytes before the damage of a gzip file.
            read = getattr(file, "read1", file.read)
            while block:
                block = read(_BLOCK_BYTES)
                data = block.partition(b"\0")[0]
                yield decoder.decode(data, final=not block)
                position += len(data)
                if position > maximum:
                    detail = (
                        f"expands to more than {MAXIMUM_EXPANSION} times its size; if it is no "
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
    except UnicodeDecodeError as error:
        at = position + len(data) - (len(error.object) - error.start)
        yield Fault(label, None, "bad_utf8", f"byte {at}: {error.reason}; save the file as UTF-8")
    except (EOFError, OSError, zlib.error) as error:
        yield damage_fault(error, path, label, f"byte {position}")
