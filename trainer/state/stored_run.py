"""A run in an object store.

Every machine works in a folder on its own disk. What the run needs after a machine is gone is in
the store:

* `checkpoints/STEP-ID/` has the files of a checkpoint, and the metrics until then. Every process
  puts the files that it wrote.
* `checkpoints/STEP-ID.json` lists them. The first process puts it last, and only then does the
  checkpoint count. The ID is new for every attempt, so that a process that was taken for dead never
  replaces a file of a checkpoint that counts.
* `metrics.jsonl` and `weights.parquet` are copies for readers, as of the last checkpoint.
* The results and models are put at the end, and last the `checksums.json` that lists them. It marks
  the run as finished.

A machine needs nothing on its disk to resume. Files of checkpoints that it wrote or fetched before
are used again if their checksums are right.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from data_catalog.errors import UserError
from data_catalog.format.damage import DamagedFileError
from data_catalog.format.manifest import FileIdentity, damaged_files, is_inside, json_text
from data_catalog.format.records import parse_record, read_record
from data_catalog.format.run_files import CHECKSUMS, MODELS, Checksums, write_run_checksums
from data_catalog.format.run_record import RUN_RECORD
from data_catalog.lease import Lease
from data_catalog.place import Place
from data_catalog.temporary import remove_at_once, replacing
from data_catalog.transfer.several import for_each
from trainer.config import Checkpoint
from trainer.distributed import Team, on_all
from trainer.state.checksums import CHECKPOINTS, DAMAGED_SUFFIX, STATE, Choice, newest_sound
from trainer.state.shard_files import SHARDS

METRICS, WEIGHT_LOG, FAULT = "metrics.jsonl", "weights.parquet", "fault.json"
_COMMITTED = ".json"
_HEAD_BYTES = 2**16  # first request for the header of a shard
_STEP_DIGITS = 10


@dataclass(frozen=True)
class StoredRun:
    """An open run in a store."""

    place: Place
    """The run's folder in the store."""
    folder: Path
    """The folder on this machine that the run works in."""
    lease: Lease | None
    """Held by the first process of the run. None: another process."""

    @property
    def _checkpoints(self) -> Place:
        return self.place / CHECKPOINTS

    def checkpoint_folder(self, name: str) -> Path:
        """Return the folder on this machine of a checkpoint."""
        return self.folder / CHECKPOINTS / name

    def fetch_record(self) -> None:
        """Fetch the record of the run and its checksums. A finished run gets a folder `model`."""
        for name in (RUN_RECORD, CHECKSUMS):
            text = (self.place / name).read()
            if text is not None:
                (self.folder / name).write_bytes(text)
        if (self.folder / CHECKSUMS).exists():
            files = read_record(Checksums, self.folder / CHECKSUMS, "Remove it.").files
            if any(name.startswith(f"{MODELS[-1]}/") for name in files):
                (self.folder / MODELS[-1]).mkdir()

    def begin(self, damaged: Sequence[str]) -> None:
        """Put the record of a run that begins or resumes, and its checksum.

        Args:
            damaged: Damaged checkpoints. Their lists are renamed, so that these neither count nor
                are lost.

        Raises:
            UserError: The store failed, or another process has taken the run.
        """
        self._put_with_checksums([RUN_RECORD])
        for name in damaged:
            committed = self._checkpoints / f"{name}{_COMMITTED}"
            committed.copy_to(self._checkpoints / f"{name}{_COMMITTED}{DAMAGED_SUFFIX}")
            committed.remove()

    def put_pretrained(self) -> None:
        """Put the model that the first phase has trained. A later checkpoint does not have it."""
        self._put(path for path in (self.folder / MODELS[0]).rglob("*") if path.is_file())

    def finish(self) -> None:
        """Put the results and the model of a run, and last the checksums of all.

        Raises:
            UserError: The store failed, or another process has taken the run.
        """
        self._fetch_pretrained()
        write_run_checksums(self.folder)
        files = read_record(Checksums, self.folder / CHECKSUMS, "").files
        self._put_with_checksums(
            [name for name in files if not name.startswith(f"{MODELS[0]}/")]  # is there
        )

    def _fetch_pretrained(self) -> None:
        """Fetch the model of the first phase, if another process exported it."""
        place, folder = self.place / MODELS[0], self.folder / MODELS[0]
        if folder.exists():
            return
        sizes = place.sizes()
        for_each(lambda name: _download(place / name, folder / name, sizes[name]), sizes)

    def checkpoints(self) -> list[str]:
        """Return the names of the checkpoints that count, oldest first."""
        names = self._checkpoints.names()
        return [
            name.removesuffix(_COMMITTED)
            for name in names
            if name.endswith(_COMMITTED) and name[:_STEP_DIGITS].isdecimal()
        ]

    def new_checkpoint(self, step: int) -> str:
        """Return a name for a checkpoint of `step`."""
        return f"{step:0{_STEP_DIGITS}d}-{uuid4().hex[:12]}"

    def put_files(self, name: str, files: Collection[str]) -> None:
        """Put files of a checkpoint from its folder on this machine."""
        folder = self.checkpoint_folder(name)
        self._put(folder / file for file in files)

    def copy_metrics(self, name: str, size_bytes: int) -> None:
        """Copy the metrics as they were at a checkpoint into its folder on this machine."""
        with (self.folder / METRICS).open("rb") as metrics:
            (self.checkpoint_folder(name) / METRICS).write_bytes(metrics.read(size_bytes))

    def commit(self, name: str, files: Mapping[str, FileIdentity]) -> None:
        """Let a checkpoint count, of which all files were put.

        Raises:
            UserError: A file is missing, the store failed, or another process has taken the run.
        """
        sizes = (self._checkpoints / name).sizes()
        for file, identity in files.items():
            if sizes.get(file) != identity.bytes:
                raise UserError(
                    f"{self._checkpoints / name / file}: found {sizes.get(file, 0):,} bytes, "
                    f"expected {identity.bytes:,}. Start the run again."
                )
        self._confirm()
        (self._checkpoints / f"{name}{_COMMITTED}").write(json_text(Checksums(files={**files})))
        for file in (METRICS, WEIGHT_LOG):
            (self.place / file).upload(self.checkpoint_folder(name) / file)

    def remove_old(self, newest: str, settings: Checkpoint) -> None:
        """Remove the checkpoints that are not kept, and what killed processes have left.

        Args:
            newest: The checkpoint that was committed last.
            settings: The number of checkpoints to keep.
        """
        steps = sorted({int(name[:_STEP_DIGITS]) for name in self.checkpoints()})
        kept = set(steps[-settings.keep :])
        if settings.keep_every_steps:
            kept |= {step for step in steps if step % settings.keep_every_steps == 0}
        for name in self.checkpoints():
            step = int(name[:_STEP_DIGITS])
            again = name != newest and newest.startswith(name[:_STEP_DIGITS])
            if again or step not in kept:
                (self._checkpoints / f"{name}{_COMMITTED}").remove()
        names = self._checkpoints.names()
        listed = {name.partition(".")[0] for name in names if "." in name}
        left = [name for name in names if "." not in name and name not in listed]
        files = [f"{name}/{file}" for name in left for file in (self._checkpoints / name).sizes()]
        for_each(lambda file: (self._checkpoints / file).remove(), files)

    def forget_others(self, name: str) -> None:
        """Remove this machine's folders of other checkpoints."""
        for folder in (self.folder / CHECKPOINTS).glob("[0-9]*"):
            if folder.name != name:
                remove_at_once(folder)

    def choose_checkpoint(self, team: Team) -> Choice:
        """Fetch and return the newest sound checkpoint. All processes call this and agree.

        Raises:
            UserError: There are checkpoints, and all of them are damaged. Or the store cannot be
                read.
        """
        own = on_all(team, lambda: self.checkpoints() if team.is_leader else [])
        [names, *_] = team.gather(json.dumps(own))
        name, damaged = newest_sound(
            self._checkpoints, json.loads(names), self.fetch_checkpoint, team
        )
        return Choice(self.checkpoint_folder(name) if name else None, damaged)

    def fetch_checkpoint(self, name: str) -> str:
        """Fetch a checkpoint to this machine, and return what is wrong with it.

        A shard is fetched by the processes that need it, see `fetch_shards`. Until then, a file
        with nothing but its header stands for it.

        Returns:
            A file and its fault, or an empty text.
        """
        place, folder = self._checkpoints / name, self.checkpoint_folder(name)
        try:
            files = self._files(name)
        except DamagedFileError as error:
            return f"{error.path.name}: {error.reason}"
        sizes = place.sizes()
        for file, identity in files.items():
            if file not in sizes:
                return f"{file}: missing"
            if sizes[file] != identity.bytes:
                return f"{file}: {sizes[file]} bytes, expected {identity.bytes}"
        self.forget_others(name)
        shards = {file for file in files if file.startswith(f"{SHARDS}/")}
        own = {file: identity for file, identity in files.items() if file not in shards}
        if faults := self._fetch(name, own):
            return "{}: {}".format(*next(iter(faults.items())))
        for_each(lambda file: self._fetch_header(name, file, files[file].bytes), shards)
        shutil.copyfile(folder / METRICS, self.folder / METRICS)
        return ""

    def fetch_shards(self, paths: Collection[Path]) -> None:
        """Fetch files of a checkpoint that `fetch_checkpoint` has fetched without their content.

        Raises:
            DamagedFileError: A file in the store differs from its checksum.
            UserError: The store cannot be read.
        """
        below = [path.relative_to(self.folder / CHECKPOINTS) for path in paths]
        for name in {path.parts[0] for path in below}:
            files = self._files(name)
            wanted = {path.relative_to(name).as_posix() for path in below if path.parts[0] == name}
            for file, fault in self._fetch(name, {file: files[file] for file in wanted}).items():
                raise DamagedFileError(self._checkpoints / name / file, fault, self._remedy(name))

    def _files(self, name: str) -> dict[str, FileIdentity]:
        """Return the size and checksum of each file of a checkpoint.

        Raises:
            DamagedFileError: The list of them is missing or damaged.
        """
        place = self._checkpoints / f"{name}{_COMMITTED}"
        if (text := place.read()) is None:
            raise DamagedFileError(place, "missing")
        try:
            files = parse_record(Checksums, text, str(place), "").files
        except UserError:
            raise DamagedFileError(place, "cannot be read", self._remedy(name)) from None
        for file in (STATE, METRICS):
            if file not in files:
                raise DamagedFileError(place, f"{file} is not listed", self._remedy(name))
        return files

    def _remedy(self, name: str) -> str:
        return f"Remove {self._checkpoints / name}{_COMMITTED} to resume from an earlier one."

    def _fetch(self, name: str, files: Mapping[str, FileIdentity]) -> dict[str, str]:
        """Fetch the files that this machine lacks. Return the faults of those that are damaged."""
        place, folder = self._checkpoints / name, self.checkpoint_folder(name)
        missing = damaged_files(folder, files)

        def get(file: str) -> None:
            if is_inside(folder, file):
                _download(place / file, folder / file, files[file].bytes)

        for_each(get, missing)
        return damaged_files(folder, {file: files[file] for file in missing})

    def _fetch_header(self, name: str, file: str, size: int) -> None:
        """Write a file of the size of a shard with its header, if it is not there already."""
        place, path = self._checkpoints / name / file, self.checkpoint_folder(name) / file
        if path.exists() or not is_inside(self.checkpoint_folder(name), file):
            return
        head = place.read_range(0, min(size, _HEAD_BYTES))
        end = 8 + int.from_bytes(head[:8], "little")
        if end > len(head):
            head += place.read_range(len(head), min(end, size) - len(head))
        with replacing(path) as temporary, temporary.open("wb") as target:
            target.write(head[:end])
            target.truncate(size)

    def _put(self, paths: Iterator[Path]) -> None:
        for_each(
            lambda name: (self.place / name).upload(self.folder / name),
            [path.relative_to(self.folder).as_posix() for path in paths],
        )

    def _put_with_checksums(self, names: Sequence[str]) -> None:
        self._confirm()
        (self.place / CHECKSUMS).remove()  # a killed process leaves none that differs
        self._put(self.folder / name for name in names)
        (self.place / CHECKSUMS).upload(self.folder / CHECKSUMS)

    def _confirm(self) -> None:
        if self.lease is not None:
            self.lease.confirm()


def finish_run(folder: Path, stored: StoredRun | None) -> None:
    """Write the checksums of a finished run, and put all that is left of a run in a store."""
    if stored is None:
        write_run_checksums(folder)
    else:
        stored.finish()


def _download(place: Place, path: Path, size: int) -> None:
    with replacing(path) as temporary:
        place.download(temporary, size)
