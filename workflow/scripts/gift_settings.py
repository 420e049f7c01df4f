"""Write GIFT's Tables 8, 10 and 11 beside the settings of the scale `paper`: gift-settings.md."""

from __future__ import annotations

import csv
import itertools
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

OUT = ROOT / "docs/results/gift-settings.md"
HEAD = """# GIFT's settings: Tables 8, 10 and 11

Written by `python workflow/scripts/gift_settings.py` from workflow/published and
workflow/scales/paper.yaml; do not edit. Table 9, the teachers, is `results/gift/table9.csv`.
"""
Line = tuple[str, str, str]  # what, printed, ours


def printed(table: int) -> list[dict[str, str]]:
    """The lines of one of GIFT's tables as they are printed."""
    with (ROOT / f"workflow/published/gift_table{table}.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def scale() -> dict[str, Any]:
    """The scale `paper` as its file says it."""
    text = (ROOT / "workflow/scales/paper.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def datasets() -> list[Line]:
    """Table 8: classes, training and test images per class (the mean, where it is a range)."""
    found: list[Line] = []
    for line in printed(8):
        ours = scale()["datasets"][line["dataset"]]["expected"]
        low, high = line["train_per_class_min"], line["train_per_class_max"]
        train = low if low == high else f"{low} to {high}"
        per_class = [f"{ours[part] / ours['classes']:g}" for part in ("train", "test")]
        theirs = f"{line['num_classes']}, {train}, {line['test_per_class']}"
        found.append((line["dataset"], theirs, ", ".join([str(ours["classes"]), *per_class])))
    return found


def strengths() -> list[Line]:
    """Table 10: strengths of the augmentation `dsa`."""
    from distillery.training.augmentations.dsa import Strengths

    ours = {"crop_pad" if key == "crop" else key: v for key, v in asdict(Strengths()).items()}
    return [
        (line["parameter"], f"{float(line['value']):g}", f"{ours[line['parameter']]:g}")
        for line in printed(10)
    ]


def evaluation() -> list[Line]:
    """Table 11: how students are trained, by the protocol `gift-kl`."""
    paper = scale()
    ours = paper["evaluate"]["gift-kl"]["training"]
    short = paper["datasets"]["imagenet-1k"]["evaluate"]["gift-kl"]["training"]
    limits = [0, *(limit for limit, _ in ours["batch_up_to"])]
    sizes = iter([*(size for _, size in ours["batch_up_to"]), ours["batch"]])
    ranges = [f"{a} < num_images <= {b}" for a, b in itertools.pairwise(limits)]
    conditions = iter([*ranges, f"{limits[-1]} < num_images"])
    milestones = "; ".join(f"{part:.4f} of epochs" for part in ours["schedule"]["milestones"])
    values = {
        "optimizer": ours["optimizer"]["name"],
        "learning_rate": f"{ours['optimizer']['lr']:g}",
        "scheduler": ours["schedule"]["name"],
        "scheduler_milestones": milestones,
        "scheduler_gamma": f"{ours['schedule']['gamma']:g}",
        "augmentation": ", ".join(ours["augment"]),
    }
    found: list[Line] = []
    for line in printed(11):
        name, condition, value = line["config"], line["condition"], values.get(line["config"], "")
        if name == "epochs":
            value = str((short if "imagenet" in condition else ours)["epochs"])
        if name == "batch_size":
            value = f"{next(sizes)} ({next(conditions)})"
        theirs = f"{line['value']} ({condition})" if condition else line["value"]
        found.append((name, theirs, value))
    return found


def page() -> str:
    """The page, in Markdown."""
    parts = {
        "Table 8: classes, training and test images of a class": datasets(),
        "Table 10: strengths of DSA": strengths(),
        "Table 11: how students are trained": evaluation(),
    }
    text = HEAD
    for title, lines in parts.items():
        rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        text += f"\n## {title}\n\n| | printed | scale paper |\n| --- | --- | --- |\n{rows}"
    return text


def main() -> None:
    """Write the page."""
    from distillery.store.atomic import write_text

    write_text(OUT, page())


if __name__ == "__main__":
    main()
