"""Add the finished artefacts that DVC does not track yet to the tracked store.

A stage's folder is added whole only the first time; afterwards new files are added by name, since
adding the folder again would drop everything that is not on this disk.
"""

from __future__ import annotations

from store import STORE, dvc, tracked


def main() -> None:
    """Track every complete artefact."""
    known = tracked()
    stages = sorted(path for path in STORE.iterdir() if path.is_dir())
    first = [str(stage) for stage in stages if not stage.with_suffix(".dvc").exists()]
    if first:
        dvc("add", "--quiet", *first)
    later = [stage for stage in stages if str(stage) not in first]
    complete = [meta.parent for stage in later for meta in stage.glob("*/meta.json")]
    new = sorted(
        str(file) for folder in complete for file in folder.iterdir() if str(file) not in known
    )
    if new:
        dvc("add", "--quiet", *new)
    print(f"save: {len(first)} stages and {len(new)} files newly tracked")


if __name__ == "__main__":
    main()
