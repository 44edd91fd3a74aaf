"""Which entries of a checkpoint are the weights of a network: all of one network, or ValueError.

Training programs keep a network under keys of their own, beside optimizers, counters, averaged copies and other
networks. Nothing is guessed: where a file holds two networks, the caller has to say which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from symerge_dense.models.entry_errors import TOP, nothing, part_beside, several
from symerge_dense.models.training_entries import (
    is_optimizer,
    is_training_state,
    named_weight,
    nameless,
    says_statistics,
    says_training,
    words,
)
from symerge_dense.models.weight_files import listing
from symerge_dense.models.whole_network import check_whole, is_weight
from symerge_dense.registry import did_you_mean

WRAPPERS = ("module.", "_orig_mod.")  # put before all names by DataParallel and torch.compile
OWNERS = (*WRAPPERS, "model.")  # and by Lightning modules
DEEPEST = 6
# Words in a key: these are copies that are averaged over training ...
AVERAGED = {"ema", "swa", "averaged"}
ROLES = {"student", "teacher", "generator", "discriminator", "critic", "netg", "netd", "momentum"}  # ... one of several
NOT_USED = "the averaged (EMA) weights under {} are not used; --ema takes them (in Python ema=True)"
COUNTERS = {"n_averaged", "steps", "num_updates", "updates"}  # of averaged copies


@dataclass(frozen=True)
class Network:
    """The weights of one network.

    Args:
        state: tensors by name, without the wrappers that all names share.
        key: where they stood in the file, dotted; '' for the top level.
        wrapper: what was taken off all names, such as 'module.'.
        remarks: what a user should know of the rest of the file.
        averaged: whether they are averaged (EMA) weights.
    """

    state: dict[str, Tensor]
    key: str = ""
    wrapper: str = ""
    remarks: tuple[str, ...] = ()
    averaged: bool = False


def network_in(content: Any, source: str, key: str | None = None, ema: bool = False) -> Network:
    """The network in the content of a checkpoint.

    Args:
        content: what was read: tensors by name, alone or nested under keys.
        source: the file, for messages.
        key: of the wanted network, such as 'teacher' or 'teacher.state_dict'; '.' for the tensors at the top level;
            None where there is only one.
        ema: take the averaged (EMA) weights.

    Raises:
        ValueError: there is no network or there are several, or it is quantised, an adapter, a difference, or has
            entries that are no tensors; the message shows what is there, and the remedy.
    """
    groups = {**dict(_groups(content)), **({} if key is None else _below(content, key))}
    where, state, remarks = _chosen(groups, content, source, key, ema)
    if key is None:
        remarks = (*remarks, *_nameless(content, where, source))
    state, progress = _without_progress(state)
    state, part, wrapper, more = _one_of(state, source, key, ema, where)
    state, counters = _without_counters(state)
    check_whole(state, _entries(content, where), source)
    prefix = common_prefix(state, WRAPPERS)
    bare = {name.removeprefix(prefix): value for name, value in state.items()}
    if counters:
        more = (*more, f"averaged weights (EMA or SWA); {', '.join(counters)} left out")
    if progress:
        more = (*more, f"numbers of the training left out: {', '.join(progress)}")
    where = ".".join(filter(None, (where, part)))
    averaged = bool(counters or _words(where) & AVERAGED)
    return Network(bare, where, wrapper + prefix, (*remarks, *more), averaged)


def common_prefix(names: Collection[str], prefixes: Collection[str]) -> str:
    """The longest sequence of ``prefixes`` that all names begin with; '' for a single name left bare by it.

    Args:
        names: of the tensors of one network.
        prefixes: for example 'module.'.
    """
    found = ""
    while names:
        longer = (found + prefix for prefix in prefixes)
        more = next((new for new in longer if all(len(n) > len(new) and n.startswith(new) for n in names)), None)
        if more is None:
            break
        found = more
    return found


# -- networks under keys ----------------------------------------------------------------------------------------------
def _groups(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(dotted key, tensors by name) of every dict with tensors, training state left out."""
    if not isinstance(content, Mapping) or is_optimizer(content) or depth > DEEPEST:
        return
    own = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if own:
        yield path, own
    for name, value in content.items():
        if isinstance(value, Mapping) and not is_training_state(str(name), value):
            yield from _groups(value, f"{path}.{name}" if path else name, depth + 1)


def _entries(content: Any, path: str) -> Mapping[Any, Any]:
    """The dict at a dotted key, whose names may hold dots themselves."""
    if not path:
        return content if isinstance(content, Mapping) else {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if str(name) == path and isinstance(value, Mapping):
            return value
        inside = path.startswith(f"{name}.") and isinstance(value, Mapping)
        if inside and (found := _entries(value, path[len(str(name)) + 1 :])):
            return found
    return {}


def _below(content: Any, key: str) -> dict[str, dict[str, Tensor]]:
    """The groups at or under a key that was asked for, whatever it is called."""
    return dict(_groups(_entries(content, key), key)) if key != TOP else {}


def _chosen(
    groups: dict[str, dict[str, Tensor]], content: Any, source: str, key: str | None, ema: bool
) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """(key, tensors, remarks) of the one group that is meant."""
    if key is not None:
        at = "" if key == TOP else key
        found = {name: group for name, group in groups.items() if name == at or (at and name.startswith(f"{at}."))}
        if at in found:
            return at, found[at], ()
        if not found:  # perhaps the first part of the names of the only network
            groups = {
                name: group
                for name, group in groups.items()
                if key.removeprefix(f"{name}.") in _parts(group, common_prefix(group, OWNERS))
            }
            if not groups:
                raise _unknown(key, dict(_groups(content)), source)
            found = groups
        groups = found
    likely = {name: group for name, group in groups.items() if any(_weighty(name, *item) for item in group.items())}
    likely = likely or {name: group for name, group in groups.items() if name or not _scalars(group)}
    if not likely or (all(map(_scalars, likely.values())) and not any(map(_named_weights, likely))):
        raise nothing(content, source)
    averaged = [name for name in likely if _words(name) & AVERAGED]
    plain = {name: group for name, group in likely.items() if name not in averaged}
    remarks = _beside(groups, likely, source)
    if ema and averaged:
        likely = {name: likely[name] for name in averaged}
    elif plain and averaged and not ema:
        likely = plain
        remarks = (*remarks, NOT_USED.format(", ".join(map(repr, averaged))))
    if len(likely) > 1:
        raise several({name or TOP: list(group) for name, group in likely.items()}, source)
    ((where, state),) = likely.items()
    return where, state, remarks


def _words(text: str) -> set[str]:
    return set(words(text))


def _scalars(group: Mapping[str, Tensor]) -> bool:
    return all(value.ndim == 0 for value in group.values())


def _named_weights(key: str) -> bool:
    """Whether a key says that network weights stand there, however few they are."""
    return bool(_words(key) & {"state", "model", "net", "network", "params", "weights", "module"})


def _weighty(group: str, name: str, value: Tensor) -> bool:
    """Whether a tensor makes its group a network: a matrix, if no confusion matrix beside the network."""
    return is_weight(value) and (bool(group) or not says_statistics(name))


def _beside(
    groups: Mapping[str, Mapping[str, Tensor]], likely: Mapping[str, Mapping[str, Tensor]], source: str
) -> tuple[str, ...]:
    """Remark on the groups that are not read; ValueError where they may be parts of the network."""
    rest = {name or TOP: group for name, group in groups.items() if name not in likely and not _scalars(group)}
    parts = [
        f"{name!r} ({listing(group)})"
        for name, group in rest.items()
        if any(named_weight(*item) for item in group.items())
    ]
    if parts:
        raise part_beside(parts, max(likely, key=lambda name: len(likely[name])) or TOP, source)
    told = [f"{name!r} ({listing(group)})" for name, group in rest.items()]
    return (f"not read: {'; '.join(told)}",) if told else ()


def _nameless(content: Any, where: str, source: str) -> tuple[str, ...]:
    """Remark on arrays and lists of tensors outside the network; ValueError where they may be parts of it."""
    found = dict(nameless(content, where))
    averaged = [name for name in found if _words(name) & (AVERAGED | {"shadow"})]
    parts = [name for name in found if name not in averaged and named_weight(name.rpartition(".")[2], found[name])]
    if parts:
        raise part_beside(list(map(repr, parts)), where or TOP, source)
    rest = [name for name in found if name not in averaged and not says_statistics(name)]
    return (
        *(f"the averaged (EMA) weights under {name!r} have no names, so --ema cannot use them" for name in averaged),
        *([f"not read: {listing(rest)}, which are no tensors by name"] if rest else []),
    )


# -- networks by the first part of their names ------------------------------------------------------------------------
def _parts(names: Collection[str], wrapper: str) -> dict[str, list[str]]:
    """{first part of the names after ``wrapper``: the names}"""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.removeprefix(wrapper).partition(".")[0], []).append(name)
    return parts


Part = tuple[dict[str, Tensor], str, str, tuple[str, ...]]


def _one_of(state: dict[str, Tensor], source: str, key: str | None, ema: bool, where: str) -> Part:
    """(tensors, first part of their names, wrapper, remarks) of one of several networks in one dict of tensors."""
    wrapper = common_prefix(state, OWNERS)
    parts = _parts(state, wrapper)

    def only(part: str, *remarks: str) -> Part:
        inside = f"{wrapper}{part}."
        return {name.removeprefix(inside): state[name] for name in parts[part]}, part, inside, remarks

    wanted = None if key is None else key.removeprefix(f"{where}.")
    if wanted in parts and wanted != where:
        return only(wanted)
    special = [part for part, names in parts.items() if _words(part) & (AVERAGED | ROLES) and len(names) > 1]
    averaged = [part for part in special if _words(part) & AVERAGED]
    rest = {name: state[name] for part, names in parts.items() if part not in special for name in names}
    networks = [*special, *([TOP] if any(map(is_weight, rest.values())) else [])]
    plain = [part for part in networks if part not in averaged]
    if len(networks) < 2:
        return state, "", "", ()
    if key == TOP and TOP in networks:
        return rest, "", "", ()
    if ema and len(averaged) == 1:
        return only(averaged[0])
    if len(plain) != 1 or ema:
        raise several({part: parts.get(part, list(rest)) for part in networks}, source)
    remark = NOT_USED.format(", ".join(map(repr, averaged)))
    return (rest, "", "", (remark,)) if plain == [TOP] else only(plain[0], remark)


def _without_progress(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out single numbers of the training between the weights, such as 'best_loss'."""
    numbers = [
        name
        for name, value in state.items()
        if value.ndim == 0 and value.is_floating_point() and "." not in name and says_training(name)
    ]
    rest = {name: value for name, value in state.items() if name not in numbers}
    return (rest, numbers) if rest else (state, [])


def _without_counters(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out the counters of averaged copies, which keep 'module.' from being in front of all names."""
    counters = [name for name, value in state.items() if name in COUNTERS and value.ndim == 0]
    rest = {name: value for name, value in state.items() if name not in counters}
    return (rest, counters) if counters and common_prefix(rest, WRAPPERS) else (state, [])


def _unknown(key: str, groups: Mapping[str, Mapping[str, Tensor]], source: str) -> ValueError:
    parts = {part for group in groups.values() for part in _parts(group, common_prefix(group, OWNERS))}
    known = [*(name or TOP for name in groups), *sorted(parts)]
    return ValueError(f"{source}: {did_you_mean(key, known, 'key')} These are its keys with tensors.")
