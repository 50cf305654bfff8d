"""Writing of checkpoints, by one process or by all of them together."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from data_catalog.disk import describe_disk_failure
from data_catalog.errors import UserError
from data_catalog.format.manifest import FileIdentity, describe_files, write_json
from data_catalog.format.run_files import CHECKSUMS, Checksums
from data_catalog.temporary import remove_at_once, remove_unfinished, replacing
from trainer.config import Checkpoint
from trainer.distributed import Team
from trainer.state.checkpoint import Snapshot, State, take_snapshot, write_log
from trainer.state.checksums import CHECKSUMS_KEY, STATE, checkpoints
from trainer.state.shard_files import SHARDS, split_state, write_shards
from trainer.state.stored_run import StoredRun
from trainer.state.whole_files import write_whole

Result = TypeVar("Result")


class CheckpointWriter:
    """Writer of `out/checkpoints/STEP/`, one at a time, in a thread if `settings.asynchronous`.

    All processes create a writer and call it together. If the model is sharded, every process
    writes its own shard, and the leader everything else. Otherwise the leader writes everything.
    """

    def __init__(
        self, out: Path, settings: Checkpoint, team: Team, stored: StoredRun | None = None
    ) -> None:
        """Prepare to write, and remove the unfinished files of killed processes.

        Args:
            out: the folder of the run on this machine.
            settings: when and how to write.
            team: the processes of the run.
            stored: the run, if it is in a store. Checkpoints are put there.
        """
        self._out, self._settings, self._team, self._stored = out, settings, team, stored
        self._thread = ThreadPoolExecutor(1) if settings.asynchronous else None
        self._writing: Future[None] | None = None
        self._group: dist.ProcessGroup | None = None
        if team.is_leader:
            remove_unfinished((out, out / "checkpoints"))

    def save(
        self,
        state: State,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, str],
    ) -> None:
        """Copy the current state and write it, or start writing it.

        Args:
            state: the state of the run.
            model: the plain model.
            optimizer: its optimizer.
            identity: fingerprints of the config, the catalog and the tokenizer.

        Raises:
            UserError: This checkpoint, or the previous one if it was still being written, could not
                be written.
        """
        self._wait()  # Wait before copying, so that at most one copy is in memory.
        snapshot = take_snapshot(state, model, optimizer, identity, self._team.is_leader)
        if snapshot.sharded and self._group is None:
            # The thread's collectives must not mix with those of training.
            self._group = dist.new_group(backend="gloo")
        if not (snapshot.sharded or self._team.is_leader):
            return
        if self._thread is not None:
            self._writing = self._thread.submit(self._write, snapshot)
        else:
            self._write(snapshot)

    def close(self) -> None:
        """Wait until the last checkpoint is on disk. Calling this twice is harmless.

        Raises:
            UserError: The checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.shutdown()
        self._wait()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, snapshot: Snapshot) -> None:
        try:
            if self._stored is not None:
                put_together(self._stored, snapshot, self._group, self._settings)
                return
            if self._group is None:
                write_snapshot(self._out, snapshot)
            else:
                write_together(self._out, snapshot, self._group)
            if self._team.is_leader:
                _remove_old(self._out, self._settings)
        except UserError as error:  # of the store
            raise UserError(f"{error} {_not_written(snapshot)}") from error
        except OSError as error:
            text = f"{describe_disk_failure(error) or error} {_not_written(snapshot)}"
            if self._stored is None:
                saved = checkpoints(self._out)
                last = f"that of step {int(saved[-1].name)}" if saved else "none"
                text += f" The last complete checkpoint is {last}."
            raise UserError(text) from error


def _not_written(snapshot: Snapshot) -> str:
    return f"The checkpoint of step {snapshot.step} was not written."


def write_snapshot(out: Path, snapshot: Snapshot) -> None:
    """Write `out/checkpoints/STEP/`. The folder is renamed to this only when it is on disk."""
    folder = _folder(out, snapshot)
    with replacing(folder) as temporary:
        temporary.mkdir()
        write_whole(temporary, *split_state(snapshot.copies))
        _write_state(temporary, snapshot, {})
    _sync_to_disk(folder.parent)


def write_together(out: Path, snapshot: Snapshot, group: dist.ProcessGroup) -> None:
    """Write `out/checkpoints/STEP/`, to which every process of `group` adds its shard.

    All processes call this together. The first one makes a temporary folder and, when all shards
    are on disk, writes everything else into it and renames it. A process that is killed leaves a
    temporary folder, which never counts as a checkpoint.

    Raises:
        OSError: A process could not write its files. All processes raise it.
    """
    folder, leads = _folder(out, snapshot), dist.get_rank(group) == 0
    with ExitStack() as stack:

        def begin() -> str:
            if not leads:
                return ""
            temporary = stack.enter_context(replacing(folder))
            (temporary / SHARDS).mkdir(parents=True)
            return str(temporary)

        temporary = Path(_on_all(group, begin)[0])
        shards = write_shards(temporary / SHARDS, snapshot.tensors, snapshot.copies, group)
        described = _on_all(group, lambda: _described(temporary, shards))

        def publish() -> None:
            if leads:
                _write_state(temporary, snapshot, {k: v for part in described for k, v in part})
                _sync_to_disk(temporary / SHARDS)
                stack.close()
                _sync_to_disk(folder.parent)

        _on_all(group, publish)


def put_together(
    run: StoredRun,
    snapshot: Snapshot,
    group: dist.ProcessGroup | None,
    settings: Checkpoint,
) -> None:
    """Put a checkpoint into a store, to which every process of `group` adds its shard.

    All processes call this together. Without a group, this process alone has the whole model.

    Raises:
        OSError: A process could not write its files. All processes raise it.
        UserError: The store failed, or another process has taken the run. All processes raise it.
    """
    leads = group is None or dist.get_rank(group) == 0
    [name, *_] = _on_all(group, lambda: run.new_checkpoint(snapshot.step) if leads else "")
    folder, described = run.checkpoint_folder(name), {}
    _on_all(group, lambda: (folder / SHARDS).mkdir(parents=True, exist_ok=True))
    if group is not None:
        shards = write_shards(folder / SHARDS, snapshot.tensors, snapshot.copies, group)

        def put_shards() -> list[tuple[str, FileIdentity]]:
            own = _described(folder, shards)
            run.put_files(name, [file for file, _ in own])
            return own

        described = {k: v for part in _on_all(group, put_shards) for k, v in part}

    def commit() -> None:
        if not leads:
            return
        if group is None:
            write_whole(folder, *split_state(snapshot.copies))
        run.copy_metrics(name, snapshot.about["metrics_bytes"])
        files = _write_state(folder, snapshot, described)
        run.put_files(name, [*(file for file in files if file not in described), CHECKSUMS])
        run.commit(name, files)
        run.remove_old(name, settings)

    _on_all(group, commit)
    run.forget_others(name)


def _on_all(group: dist.ProcessGroup | None, work: Callable[[], Result]) -> list[Result]:
    """Call `work` on every process and return all results, in rank order.

    Args:
        group: the processes. None: this one alone.
        work: the work.

    Raises:
        OSError: It failed on a process. All processes raise its error.
        UserError: The same, for a failure of a store.
    """
    if group is None:
        return [work()]
    own: tuple[Result | None, OSError | UserError | None]
    try:
        own = work(), None
    except (OSError, UserError) as error:
        own = None, error
    results = [own] * dist.get_world_size(group)
    dist.all_gather_object(results, own, group=group)
    for _, fault in results:
        if fault is not None:
            raise fault
    return [result for result, _ in results]  # type: ignore[misc]


def _described(folder: Path, paths: Iterable[Path]) -> list[tuple[str, FileIdentity]]:
    """Return the path below `folder`, the size and the checksum of this process's files."""
    return list(describe_files(folder, list(paths)).items())


def _folder(out: Path, snapshot: Snapshot) -> Path:
    return out / "checkpoints" / f"{snapshot.step:010d}"


def _write_state(
    folder: Path, snapshot: Snapshot, described: Mapping[str, FileIdentity]
) -> dict[str, FileIdentity]:
    """Write all but the tensors, and last the checksums of all files, which are returned.

    Args:
        folder: the temporary folder.
        snapshot: the content.
        described: size and checksum of the files that the processes wrote into folders below. Those
            beside this are read.
    """
    write_log(folder / "weights.parquet", snapshot.log)
    np.savez(folder / "arrays.npz", allow_pickle=False, **snapshot.arrays)
    write_json(folder / STATE, {**snapshot.about, CHECKSUMS_KEY: True})
    beside = [path for path in folder.iterdir() if path.is_file()]
    files = {**describe_files(folder, beside), **described}
    write_json(folder / CHECKSUMS, Checksums(files=files))
    for path in (*beside, folder / CHECKSUMS, folder):
        _sync_to_disk(path)
    return files


def _remove_old(out: Path, settings: Checkpoint) -> None:
    for old in checkpoints(out)[: -settings.keep]:
        if settings.keep_every_steps and int(old.name) % settings.keep_every_steps == 0:
            continue
        remove_at_once(old)  # a partly removed checkpoint must not look complete


def _sync_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
