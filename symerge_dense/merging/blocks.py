"""Depth of every tensor, read from the module tree: the residual blocks of a ResNet, the blocks of a ViT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn

STEM = "stem"


def block_of_tensors(module: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Block name of every tensor in ``names`` (state-dict order).

    A chain is an ``nn.Sequential`` or ``nn.ModuleList`` of composite modules of one class, a class that occurs at
    least twice in the model's chains; of nested chains (stages of blocks) the innermost counts. Each of its children
    is a block under its own dotted name. Everything before the first chain is the block 'stem'; what lies between or
    after chains (a downsampling, a final norm) goes by the largest subtree without a chain. In a model without
    chains every direct child is a block.
    """
    links = _links(module)
    above = {path.rsplit(".", depth)[0] for path in links for depth in range(1, path.count(".") + 1)} | {""}
    blocks: dict[str, str] = {}
    seen = not links
    for name in names:
        prefixes = _prefixes(name)
        link = next((path for path in prefixes if path in links), None)
        seen = seen or link is not None
        outside = next((path for path in prefixes if path not in above), STEM) if seen else STEM
        blocks[name] = link or outside
    return blocks


def _links(module: nn.Module) -> set[str]:
    """Dotted names of the modules that repeat."""
    chains = {}
    for path, container in module.named_modules():
        if not isinstance(container, (nn.Sequential, nn.ModuleList)):
            continue
        children = {f"{path}.{name}".lstrip("."): child for name, child in container.named_children()
                    if _has_state(child)}
        composite = all(any(map(_has_state, child.children())) for child in children.values())
        if composite and len({type(child) for child in children.values()}) == 1:
            chains[path] = children
    occurrences = Counter(type(child) for children in chains.values() for child in children.values())
    repeating = {path: children for path, children in chains.items()
                 if all(occurrences[type(child)] > 1 for child in children.values())}
    innermost = [children for path, children in repeating.items()
                 if not any(other != path and other.startswith(f"{path}." if path else "") for other in repeating)]
    return {link for children in innermost for link in children}


def _has_state(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _prefixes(name: str) -> list[str]:
    """Module paths above a tensor, outermost first: 'a.b.weight' -> ['a', 'a.b']."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
