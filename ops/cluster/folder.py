"""A run's folder on a host that no agent prepares: `python -m mmzero_async.ops.cluster.folder`.

Does for Slurm and Kubernetes what an agent does for a driver: configuration, the base model's
place, keys with the modes that readers of keys insist on. May be run again; replaces files whole.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from mmzero_async.config import ConfigError, from_json
from mmzero_async.engines.errors import ModelUnusable
from mmzero_async.ops.cluster.files import replace
from mmzero_async.ops.rundir import base_model_folder

HOPELESS = os.EX_CONFIG


def prepare(
    run_dir: Path, config: Path, base_model: str | None, keys: Path | None, authorized: Path | None
) -> None:
    """Makes the folder, or brings it up to date.

    Args:
        config: the configuration, as JSON.
        base_model: its folder here, empty for what the configuration says; None: not needed here.
        keys: a folder whose files are copied to keys/, readable by us alone.
        authorized: a folder of public keys, which become keys/authorized/.

    Raises ConfigError, ModelUnusable, OSError.
    """
    text = config.read_text(encoding="utf-8")
    loaded = from_json(text)
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    replace(run_dir / "config.json", text, 0o644)
    if base_model is not None:
        replace(run_dir / "base_model", str(base_model_folder(loaded, base_model)), 0o644)
    if keys is not None:
        _copy(keys, run_dir / "keys")
    if authorized is not None:
        shutil.rmtree(run_dir / "keys" / "authorized", ignore_errors=True)  # the revoked go
        _copy(authorized, run_dir / "keys" / "authorized")


def _copy(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    target.chmod(0o700)  # a volume that was mounted there came with its own mode
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            mode = 0o600 if path.name.endswith("_secret") else 0o644
            replace(target / path.name, path.read_text(encoding="ascii"), mode)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--base-model", help="its folder; '' for what the configuration says")
    parser.add_argument("--keys", type=Path, help="folder of key files to copy")
    parser.add_argument("--authorized", type=Path, help="folder of public keys to copy")
    args = parser.parse_args(argv)
    try:
        prepare(args.run_dir, args.config, args.base_model, args.keys, args.authorized)
    except (ConfigError, ModelUnusable, ValueError, OSError) as error:
        print(f"run's folder {args.run_dir}: {error}", file=sys.stderr)
        return HOPELESS
    return 0


if __name__ == "__main__":
    sys.exit(main())
