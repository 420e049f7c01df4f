"""Class embeddings from the words: CLIP's text model reads the class names (PoDD, section 4.2)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from distillery.components.fields import InLibrary
from distillery.embeddings.distances import ClassDistances, cosine_distances
from distillery.errors import DataError, PlanError, nearest

if TYPE_CHECKING:
    from distillery.data.images import ImageSet
    from distillery.store.job import Job
    from distillery.teacher.load import Teacher

NAMES = ("clip",)
BATCH = 64


class TextModel(Protocol):
    """What is used of a model of open_clip."""

    def encode_text(self, text: Tensor) -> Tensor:
        """Embeddings (n, d) of token ids (n, positions)."""
        ...

    def to(self, device: torch.device) -> TextModel:
        """The same model on `device`."""
        ...


@dataclass(frozen=True)
class Recipe:
    """Embeddings from the words.

    Attributes:
        model: open_clip's name of the architecture; OpenAI's weights were trained with its
            quickgelu kind.
        weights: open_clip's name of published weights, which are downloaded; unused with `path`.
        path: a checkpoint on disk, .safetensors or of torch.
        tokens: "pooled", the embedding of the text; "all", the final hidden states of all positions
            side by side.
        prompt: {} is the name, underscores written as spaces.
        names: class -> the words to use for it.
        words_path: a file of a line per class, its name, a tab, and words for it, of which those
            before the first comma are used (WordNet's words.txt); None: the names of the classes.
    """

    model: Annotated[str, InLibrary("open_clip models")] = "ViT-B-32-quickgelu"
    weights: Annotated[str, InLibrary("open_clip weights", unless="path")] = "openai"
    path: str | None = None
    tokens: Literal["pooled", "all"] = "all"
    prompt: str = "{}"
    names: dict[str, str] = field(default_factory=dict)
    words_path: str | None = None

    def mistake(self) -> tuple[str, str] | None:
        """A prompt without a place for the name makes all classes one."""
        if "{}" in self.prompt:
            return None
        return "prompt", f"'{self.prompt}': has no {{}} for the name of the class"


def embed(
    classes: Sequence[str], recipe: Recipe, *, train: ImageSet, teachers: list[Teacher], job: Job
) -> ClassDistances:
    """Text embeddings (n, d) float32, not normalised.

    d is that of the joint space (pooled) or positions x width (all). Positions after the end of the
    text hold the end token again and are read like the others, as in the authors' code: in `all`
    they dominate. The causal mask lets no pad change a pooled embedding.
    Deviation: the paper says "the embedding of the class name"; the authors' code is `all`, the
    default here. Its names differ from those of data sets ("boat" for ship of CIFAR-10, "computer
    keyboard" for keyboard of CIFAR-100): `names`. Those of Tiny-ImageNet, whose folders have
    numbers for names, are the first of its words.txt: `words_path`.

    Args:
        classes: names in label order.
        recipe: model, weights and words.
        train: unused.
        teachers: unused.
        job: its device computes.

    Raises:
        PlanError: open_clip is not installed; the model is unknown or has no hidden states; `names`
            holds no class; or the prompt has no place for the name.
        DataError: weights cannot be had, or do not fit; the file of words is unreadable, or lacks
            a class.
    """
    prompts = _prompts(classes, recipe)
    model, tokenizer = _loaded(recipe)
    tokens = _padded(tokenizer(prompts), getattr(tokenizer, "eot_token_id", None))
    encode = {"pooled": _pooled, "all": _all}[recipe.tokens]
    model = model.to(job.device)
    vectors = torch.cat(
        [encode(model, part.to(job.device)).float().cpu() for part in tokens.split(BATCH)]
    )
    origin = f"{recipe.model}, {recipe.tokens} tokens"
    provenance = [f"{origin}, prompt {prompt!r}" for prompt in prompts]
    return ClassDistances(cosine_distances(vectors), provenance, vectors)


def _prompts(classes: Sequence[str], recipe: Recipe) -> list[str]:
    """The text of each class, in label order."""
    unknown = [name for name in recipe.names if name not in classes]
    if unknown:
        raise PlanError(
            f"embeddings 'clip': names has '{unknown[0]}', which is no class: "
            f"{nearest(unknown[0], classes)}"
        )
    if "{}" not in recipe.prompt:
        raise PlanError(f"embeddings 'clip': prompt '{recipe.prompt}' has no {{}} for the name")
    names = (_words(recipe.words_path, classes) if recipe.words_path else {}) | recipe.names
    words = [names.get(name, name).replace("_", " ") for name in classes]
    return [recipe.prompt.replace("{}", name) for name in words]


def _words(path: str, classes: Sequence[str]) -> dict[str, str]:
    """Each class and the first of its words in a file of lines "class<tab>words, words"."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"embeddings 'clip': words_path '{path}': unreadable ({error})") from None
    found = {
        name: words.split(",")[0].strip() for name, _, words in (x.partition("\t") for x in lines)
    }
    lacking = [name for name in classes if not found.get(name)]
    if lacking:
        raise DataError(
            f"embeddings 'clip': words_path '{path}': has no words for '{lacking[0]}'; "
            "give a line to each class"
        )
    return found


def _loaded(recipe: Recipe) -> tuple[TextModel, Any]:
    """Model, frozen, in eval mode, on the CPU, and its tokenizer.

    open_clip reads .safetensors as such, and other checkpoints by torch.load(weights_only=True),
    which unpickles nothing but tensors and plain containers; TorchScript archives are refused.
    """
    try:
        import open_clip  # optional, and seconds to import
    except ImportError:
        raise PlanError(
            "embeddings 'clip' need open_clip: "
            "pip install open_clip_torch, or use a file or features"
        ) from None
    models = open_clip.list_models()
    if recipe.model not in models:
        raise PlanError(f"open_clip has no model '{recipe.model}': {nearest(recipe.model, models)}")
    weights = recipe.weights if recipe.path is None else recipe.path
    try:
        with warnings.catch_warnings():
            # Where weights were trained with another activation than the model's, open_clip only
            # warns, and gives wrong numbers.
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            model = open_clip.create_model(recipe.model, pretrained=weights, weights_only=True)
        return model.eval().requires_grad_(False), open_clip.get_tokenizer(recipe.model)
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        UnpicklingError,
        SafetensorError,
        UserWarning,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"embeddings 'clip': weights '{weights}' for '{recipe.model}': {reason}"
        ) from None


def _padded(tokens: Tensor, end: int | None) -> Tensor:
    """Tokens (n, positions) with `end` wherever the text is over.

    open_clip pads with 0, the authors' tokenizer with `end`.
    """
    if end is None:
        return tokens
    # The count of end tokens so far is 1 or more from the end of the text on.
    return tokens.masked_fill((tokens == end).cumsum(1) > 0, end)


def _pooled(model: TextModel, tokens: Tensor) -> Tensor:
    return model.encode_text(tokens)


def _all(model: TextModel, tokens: Tensor) -> Tensor:
    """Final hidden states, after the last norm, before the projection: (n, positions * width)."""
    last_norm = getattr(getattr(model, "text", model), "ln_final", None)
    if not isinstance(last_norm, nn.Module):
        raise PlanError(
            f"embeddings 'clip': {type(model).__name__} shows no hidden states; set tokens: pooled"
        )
    states: list[Tensor] = []
    hook = last_norm.register_forward_hook(lambda module, inputs, output: states.append(output))
    try:
        model.encode_text(tokens)
    finally:
        hook.remove()
    return states[0].flatten(1)
