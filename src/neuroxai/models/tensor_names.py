"""Matching of the tensor names in a weight file to those of a network."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts that ``torch.compile``, FSDP and checkpointing add anywhere in a name."""

_ASIDE = re.compile(
    r"(.*_)?(ema|swa|losses|loss|criterion|criteria|teacher|optimizers?|optim|metrics?|n_averaged)"
    r"(_.*|\d*)"
)
"""First parts of the names that training adds next to the network: averages, losses, optimizers."""

_SHOWN = 3
"""Groups of names that a sentence lists."""


@dataclass(frozen=True)
class NameMatch:
    """Names of a file that belong to a network.

    Attributes
    ----------
    names
        Name in the network of each name in the file.
    prefix
        Prefix of the network's names in the file.
    aside
        Names in the file that do not belong to the network.
    """

    names: dict[str, str]
    prefix: str
    aside: tuple[str, ...]


def is_training_state(part: str) -> bool:
    """Whether the part of a name denotes an average, a loss, an optimizer or a metric.

    Examples
    --------
    >>> [is_training_state(part) for part in ("ema_model", "loss_fn", "optimizer", "encoder")]
    [True, True, True, False]
    """
    return bool(_ASIDE.fullmatch(part.lower().lstrip("_")))


def without_wrappers(name: str) -> str:
    """Return a name without the parts that wrappers add.

    Examples
    --------
    >>> without_wrappers("_orig_mod.encoder._checkpoint_wrapped_module.weight")
    'encoder.weight'
    """
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def find_prefixes(groups: Sequence[Collection[str]], found: Collection[str]) -> list[str]:
    """Return the prefixes under which a file has all tensors of a network.

    Parameters
    ----------
    groups
        Names of the network; of each group, the file needs only one.
    found
        Names in the file.

    Examples
    --------
    >>> find_prefixes([["a.weight"], ["a.bias"]], ["net.a.bias", "net.a.weight", "loss.weight"])
    ['net.']
    """
    known = set(found)
    possible = {
        name.removesuffix(own)
        for own in (groups[0] if groups else ())
        for name in known
        if name == own or name.endswith(f".{own}")
    }
    return sorted(
        prefix
        for prefix in possible
        if all(any(f"{prefix}{own}" in known for own in group) for group in groups)
    )


def match_names(groups: Sequence[Collection[str]], found: Iterable[str]) -> NameMatch | list[str]:
    """Match the names of a file, which may have a constant prefix, to those of a network.

    Averages of the weights, losses and optimizers are never taken for the network if the file also
    has the network itself.

    Parameters
    ----------
    groups, found
        As for :func:`find_prefixes`.

    Returns
    -------
    NameMatch or list of str
        The match, or the prefixes found: none, or several.

    Examples
    --------
    >>> match = match_names([["a.bias"]], ["model.a.bias", "ema_model.a.bias", "loss.weight"])
    >>> match.names, match.aside
    ({'model.a.bias': 'a.bias'}, ('ema_model.a.bias', 'loss.weight'))
    """
    present = tuple(found)
    shortened = {name: without_wrappers(name) for name in present}
    if len(set(shortened.values())) < len(shortened):
        shortened = {name: name for name in present}
    for own in _common_prefixes([name for group in groups for name in group]):
        bare = [[name.removeprefix(own) for name in group] for group in groups]
        prefixes = find_prefixes(bare, shortened.values())
        if len(prefixes) > 1:
            kept = [each for each in prefixes if not any(map(is_training_state, each.split(".")))]
            prefixes = kept or prefixes
        if len(prefixes) > 1:
            return prefixes
        if prefixes:
            return _matched(shortened, prefixes[0], own)
    return []


def describe_names(names: Sequence[str]) -> str:
    """Return names in words, grouped by their first part.

    Examples
    --------
    >>> describe_names(["ema.a", "ema.b", "loss.weight"])
    'ema.* (2 tensors), loss.weight'
    """
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(name.partition(".")[0], []).append(name)
    words = [
        each[0] if len(each) == 1 else f"{first}.* ({len(each)} tensors)"
        for first, each in grouped.items()
    ]
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _matched(shortened: dict[str, str], prefix: str, own: str) -> NameMatch:
    names, aside = {}, []
    for name, short in shortened.items():
        inside = short.startswith(prefix)
        # Without a prefix, only what training added is not the network's.
        if not inside or (not prefix and is_training_state(short.partition(".")[0])):
            aside.append(name)
        else:
            names[name] = own + short.removeprefix(prefix)
    return NameMatch(names, prefix, tuple(aside))


def _common_prefixes(names: Sequence[str]) -> list[str]:
    """Return the prefixes that all names share, shortest first, beginning with none."""
    prefixes = [""]
    parts = names[0].split(".")[:-1] if names else []
    for count in range(1, len(parts) + 1):
        prefix = ".".join(parts[:count]) + "."
        if not all(name.startswith(prefix) for name in names):
            break
        prefixes.append(prefix)
    return prefixes
