"""What a distilled set costs: the papers' compression ratio, and the bytes really stored.

INFER (section 2, Table 2) gives the ratio only as distilled size over original size. Its six
printed values follow to the last digit when images are counted by number and labels by bytes;
`cr_paper` is that arithmetic. Every "GB" of it is 2^30 bytes: the archive of the ILSVRC training
images has 147 897 477 120 bytes, 138 GB in that unit.
"""

from __future__ import annotations

from distillery.errors import BudgetError, nearest

GIB = 2**30
IMAGENET_IMAGES = 1_281_167
IMAGENET_BYTES = 138 * GIB
# INFER section 3.3: SRe2L's soft labels, ipc 50, 300 epochs, as they are released.
IMAGENET_DYNAMIC_BYTES = 25.9 * GIB
_IMAGENET_DYNAMIC_VALUES = 50 * 1000 * 1000 * 300
_FLOAT32 = 4

# Bytes of the labels of `values` label values (one per class of each image), kept for one epoch or
# for each of `epochs`.
_LABEL_BYTES = {
    "hard": lambda values, epochs: 0.0,
    "static": lambda values, epochs: values * _FLOAT32,
    "dynamic": lambda values, epochs: (
        IMAGENET_DYNAMIC_BYTES * values * epochs / _IMAGENET_DYNAMIC_VALUES
    ),
}


def cr_paper(
    ipc: float,
    classes: int,
    train_images: int,
    original_bytes: float,
    counted_as: str,
    *,
    epochs: int = 300,
) -> float:
    """Compression ratio in percent as INFER's Table 2 counts it.

    It is ipc C / N + label bytes / original bytes.

    Deviation: the paper's section 2 defines the ratio in bits; its printed numbers count images by
    number.

    Args:
        ipc: images per class.
        classes: C, number of classes.
        train_images: N, number of training images.
        original_bytes: size of the original training set; for ImageNet-1k as the paper counts it
            `IMAGENET_BYTES`, for other data sets their raw pixels.
        counted_as: kind of the labels: "hard" (free), "static" (a float32 vector of C values for
            each of the ipc C images) or "dynamic" (such a vector per image and epoch, at the 1.85
            bytes per value that SRe2L's release takes).
        epochs: of a full-length training; the paper counts the same labels for INFER+Dyn as for
            SRe2L, since it trains on M + 1 times the instances for 1 / (M + 1) of the epochs.

    Raises:
        BudgetError: another kind of labels, or a size that is not positive.
    """
    if counted_as not in _LABEL_BYTES:
        known = nearest(counted_as, _LABEL_BYTES)
        raise BudgetError(f"compression ratio: labels '{counted_as}' are not counted: {known}")
    sizes = {
        "ipc": ipc,
        "classes": classes,
        "train_images": train_images,
        "original_bytes": original_bytes,
        "epochs": epochs,
    }
    for name, size in sizes.items():
        if size <= 0:
            raise BudgetError(f"compression ratio: {name} = {size}, it must be positive")
    images = ipc * classes
    label_bytes = _LABEL_BYTES[counted_as](images * classes, epochs)
    return 100 * (images / train_images + label_bytes / original_bytes)


def cr_stored(stored_bytes: int, raw_bytes: int) -> float:
    """Bytes really stored over the raw bytes of the training images, in percent; may exceed 100.

    Args:
        stored_bytes: of all parts of the set and of its labels.
        raw_bytes: of the training images.

    Raises:
        BudgetError: the original has no bytes.
    """
    if raw_bytes <= 0:
        raise BudgetError(
            f"compression ratio: the training set has {raw_bytes} raw bytes, it must have some"
        )
    return 100 * stored_bytes / raw_bytes
