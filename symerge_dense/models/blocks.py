"""The blocks of a network that repeat: the residual blocks of a ResNet, the blocks of a ViT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn

STEM = "stem"


def block_of_tensors(module: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Assign every tensor to a block of the network.

    A chain is an ``nn.Sequential`` or ``nn.ModuleList`` of composite modules of one class, where the class occurs at
    least twice in the model's chains. Of nested chains (stages of blocks) the innermost counts. Each of its children is
    a block under its own dotted name. Everything before the first chain is the block 'stem'. A tensor between or after
    chains (a downsampling, a final norm) goes by the largest subtree without a chain. Without chains every direct child
    is a block.

    Args:
        module: the network.
        names: names of its tensors, in state-dict order.

    Returns:
        Tensor name -> block name.
    """
    links = repeated_blocks(module)
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


def repeated_blocks(module: nn.Module) -> set[str]:
    """Dotted names of the modules that repeat, see ``block_of_tensors``.

    Args:
        module: the network.
    """
    chains = {}
    for path, container in module.named_modules():
        if not isinstance(container, (nn.Sequential, nn.ModuleList)):
            continue
        children = {
            f"{path}.{name}".lstrip("."): child for name, child in container.named_children() if _has_state(child)
        }
        composite = all(any(map(_has_state, child.children())) for child in children.values())
        if composite and len({type(child) for child in children.values()}) == 1:
            chains[path] = children
    occurrences = Counter(type(child) for children in chains.values() for child in children.values())
    repeating = {
        path: children
        for path, children in chains.items()
        if all(occurrences[type(child)] > 1 for child in children.values())
    }
    innermost = [
        children
        for path, children in repeating.items()
        if not any(other != path and other.startswith(f"{path}." if path else "") for other in repeating)
    ]
    return {link for children in innermost for link in children}


def steps_from_end(module: nn.Module) -> dict[str, int]:
    """How many repeated blocks lie between each parameter and the end of a network.

    The last block counts 0, the one before it 1, the stem as many as there are blocks. What lies between two blocks (a
    downsampling) goes with the later one, and what follows the last (a final norm) with the last.

    Args:
        module: the network; the direct children count as blocks where none repeat.

    Returns:
        Parameter name -> number of blocks.
    """
    blocks = block_of_tensors(module, [name for name, _ in module.named_parameters()])
    order = list(dict.fromkeys(blocks.values()))
    repeated = repeated_blocks(module) or set(order)
    count = sum(block in repeated for block in order)
    steps, after = {}, count
    for block in order:
        after -= block in repeated
        between = block not in repeated and block != STEM
        steps[block] = max(after - between, 0)
    return {name: steps[block] for name, block in blocks.items()}


def _has_state(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _prefixes(name: str) -> list[str]:
    """Module paths above a tensor, outermost first: 'a.b.weight' -> ['a', 'a.b']."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
