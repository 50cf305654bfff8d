"""Upload of a run's model, with its card, to the hub of Hugging Face."""

from pathlib import Path

from data_catalog.errors import UserError, first_line
from data_catalog.format.run_files import require_run_files
from data_catalog.format.run_record import read_run_record

_MODEL = "model"
_CARD = "README.md"


def push_model(run: Path, repository: str, *, private: bool = False) -> str:
    """Upload the folder `model` of a finished run, and return the address of the commit.

    The repository is created if it does not exist. The account is that of `hf auth login`, or of
    the environment variable HF_TOKEN.

    Args:
        run: The folder of the run.
        repository: Name of the repository, such as `user/name`.
        private: Create the repository as a private one.

    Raises:
        DamagedFileError: A file of the model differs from its checksum.
        UserError: The run is not finished, the name is invalid, or the hub refused the upload.
    """
    try:
        from huggingface_hub import HfApi, errors  # noqa: PLC0415 - only this command needs it
    except ImportError as error:
        raise UserError(
            "push: The package huggingface_hub is not installed. Install it with "
            "`pip install 'clustermix[trainer]'`."
        ) from error

    # Of its HTTP client, httpx or httpx2.
    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    read_run_record(run)
    folder = run / _MODEL
    if not (folder / _CARD).is_file():
        raise UserError(
            f"{run}: found no {_MODEL}/{_CARD}. Expected a finished run of `clustermix train`. "
            "Finish the run."
        )
    require_run_files(run, [f"{_MODEL}/"])
    try:
        api = HfApi(library_name="clustermix")
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message="Upload of clustermix"
        )
    except errors.HFValidationError as error:
        raise UserError(
            f"repository {repository}: This is not a name on the hub ({first_line(error)}). "
            "Give one such as user/name."
        ) from error
    except (http_error, OSError, ValueError) as error:  # no login, no rights, no network
        raise UserError(
            f"repository {repository}: The upload failed ({first_line(error)}). Log in with "
            "`hf auth login`, or try again: files that are there are not uploaded again."
        ) from error
    return str(commit.commit_url)
