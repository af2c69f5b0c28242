"""A finished dataset to a hub, where there is one. Asks nothing of the network otherwise."""

from pathlib import Path

from mmzero_async.ops.datasets.manifest import CARD, MANIFEST, is_whole, read_manifest
from mmzero_async.ops.datasets.options import DatasetError
from mmzero_async.ops.datasets.shards import FOLDER


def push(folder: Path, repository: str) -> str:
    """Uploads what the manifest names to the hub's dataset `OWNER/NAME`; its address.

    The hub is huggingface_hub's (HF_ENDPOINT, HF_TOKEN). DatasetError when it cannot be reached, it
    refuses, or a file is not as it was written; the dataset stays where it is.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise DatasetError(f"{folder} holds no finished dataset to send")
    for shard in manifest.files:
        if not is_whole(folder, shard):
            raise DatasetError(f"{folder / shard.name} is not as it was written: export it again")
    from huggingface_hub import HfApi  # a second, which only this needs
    from huggingface_hub.errors import HFValidationError

    api = HfApi()
    try:
        made = api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=[CARD, MANIFEST, f"{FOLDER}/*"],
            ignore_patterns=[f"{FOLDER}/.*"],
            commit_message=f"{manifest.rows} rows",
        )
    except HFValidationError as error:
        raise DatasetError(f"--push {repository!r}: {error}") from error
    except Exception as error:  # of whatever HTTP library the hub's client speaks through
        raise DatasetError(
            f"{folder} is whole, but the hub at {api.endpoint} did not take it as {repository}: "
            f"{error}. Is there a network, and a token (`hf auth login`)? --push again sends it"
        ) from error
    return str(made)
