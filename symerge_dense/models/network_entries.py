"""Which entries of a checkpoint are the weights of a network: all of one network, or ValueError.

Training programs keep a network under keys of their own, beside optimizers, counters, averaged copies and other
networks. Nothing is guessed: where a file holds two networks, the caller has to say which.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from symerge_dense.models.weight_files import listing
from symerge_dense.models.whole_network import check_whole, is_weight
from symerge_dense.registry import did_you_mean

TOP = "."  # the key that stands for the top level of a file
WRAPPERS = ("module.", "_orig_mod.")  # put before all names by DataParallel and torch.compile
OWNERS = (*WRAPPERS, "model.")  # and by Lightning modules
DEEPEST = 6
# Words in a key: these entries are never weights of a network ...
TRAINING = re.compile(
    r"optim|sched|scaler|(^|_)(amp|rng|random|loops?|callbacks?|criterion|loss(es)?|metrics?|history|hyper|hparams|"
    r"config|cfg|args|opt|message|dataloaders?|sampler|epoch|step|param_groups)(_|$|\W)|opt_state|lr_",
    re.IGNORECASE,
)
AVERAGED = {"ema", "swa", "averaged"}  # ... these are copies that are averaged over training
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
    state, part, wrapper, more = _one_of(state, source, None if key is None else key, ema, where)
    state, counters = _without_counters(state)
    check_whole(state, _entries(content, where), source)
    prefix = common_prefix(state, WRAPPERS)
    bare = {name.removeprefix(prefix): value for name, value in state.items()}
    if counters:
        more = (*more, f"averaged weights (EMA or SWA); {', '.join(counters)} left out")
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
    if not isinstance(content, Mapping) or "param_groups" in content or depth > DEEPEST:
        return
    own = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if own:
        yield path, own
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Mapping) and not TRAINING.search(name):
            yield from _groups(value, f"{path}.{name}" if path else name, depth + 1)


def _entries(content: Any, path: str) -> Mapping[Any, Any]:
    """The dict at a dotted key, whose names may hold dots themselves."""
    if not path:
        return content if isinstance(content, Mapping) else {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if name == path and isinstance(value, Mapping):
            return value
        inside = isinstance(name, str) and path.startswith(f"{name}.") and isinstance(value, Mapping)
        if inside and (found := _entries(value, path[len(name) + 1 :])):
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
    likely = {name: group for name, group in groups.items() if any(map(is_weight, group.values()))}
    likely = likely or {name: group for name, group in groups.items() if name or not _scalars(group)}
    if not likely or (all(map(_scalars, likely.values())) and not any(map(_named_weights, likely))):
        raise _nothing(content, source)
    averaged = [name for name in likely if _words(name) & AVERAGED]
    plain = {name: group for name, group in likely.items() if name not in averaged}
    remarks = _beside(groups, likely)
    if ema and averaged:
        likely = {name: likely[name] for name in averaged}
    elif plain and averaged and not ema:
        likely = plain
        remarks = (*remarks, NOT_USED.format(", ".join(map(repr, averaged))))
    if len(likely) > 1:
        raise _several({name or TOP: list(group) for name, group in likely.items()}, source)
    ((where, state),) = likely.items()
    return where, state, remarks


def _words(text: str) -> set[str]:
    return set(re.split(r"[\W_]+", text.lower()))


def _scalars(group: Mapping[str, Tensor]) -> bool:
    return all(value.ndim == 0 for value in group.values())


def _named_weights(key: str) -> bool:
    """Whether a key says that network weights stand there, however few they are."""
    return bool(_words(key) & {"state", "model", "net", "network", "params", "weights", "module"})


def _beside(groups: Mapping[str, Mapping[str, Tensor]], likely: Mapping[str, object]) -> tuple[str, ...]:
    rest = [
        f"{name or TOP!r} ({listing(group)})"
        for name, group in groups.items()
        if name not in likely and not _scalars(group)
    ]
    return (f"not read: {'; '.join(rest)}",) if rest else ()


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
        raise _several({part: parts.get(part, list(rest)) for part in networks}, source)
    remark = NOT_USED.format(", ".join(map(repr, averaged)))
    return (rest, "", "", (remark,)) if plain == [TOP] else only(plain[0], remark)


def _without_counters(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out the counters of averaged copies, which keep 'module.' from being in front of all names."""
    counters = [name for name, value in state.items() if name in COUNTERS and value.ndim == 0]
    rest = {name: value for name, value in state.items() if name not in counters}
    return (rest, counters) if counters and common_prefix(rest, WRAPPERS) else (state, [])


# -- refusals ---------------------------------------------------------------------------------------------------------
def _several(found: Mapping[str, Collection[str]], source: str) -> ValueError:
    told = "; ".join(f"{name!r} with {listing(names)}" for name, names in found.items())
    return ValueError(
        f"{source} holds {len(found)} networks: {told}. Say which is meant with --key, for example --key "
        f"{next(iter(found))} (in Python key={next(iter(found))!r}; {TOP!r} stands for the top level)."
    )


def _unknown(key: str, groups: Mapping[str, Mapping[str, Tensor]], source: str) -> ValueError:
    parts = {part for group in groups.values() for part in _parts(group, common_prefix(group, OWNERS))}
    known = [*(name or TOP for name in groups), *sorted(parts)]
    return ValueError(f"{source}: {did_you_mean(key, known, 'key')} These are its keys with tensors.")


def _nothing(content: Any, source: str) -> ValueError:
    if isinstance(content, Mapping):
        found = ", ".join(f"{name} ({_kind(value)})" for name, value in list(content.items())[:20]) or "nothing"
    else:
        found = _kind(content)
    return ValueError(
        f"{source} holds no tensors by name (found: {found[:400]}), so it has no network. Save the network's weights: "
        "torch.save(model.state_dict(), PATH)."
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}" if value.ndim else "one number"
    if isinstance(value, Mapping):
        return "optimizer state" if "param_groups" in value else f"dict of {len(value)}"
    return type(value).__name__
