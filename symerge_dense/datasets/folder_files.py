"""Which files of a folder a pattern means, what its wildcards matched, and which of them belong to a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from symerge_dense.datasets.image_files import SUFFIXES, is_hidden, matching, what_is_there

WILDCARD = re.compile(r"(\*\*/|\*|\?|\[[^\]]+\])")
AS_REGEX = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)", "?": r"([^/])"}
SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True)
class FoundImage:
    """An image that a pattern matched.

    Args:
        path: of the image.
        parts: what each wildcard matched, without slashes at the ends and without the image's suffix.
        name: all of it together: the image's path without its suffix, from the first wildcard to the last.
    """

    path: Path
    parts: tuple[str, ...]
    name: str

    def fill(self, pattern: str, where: str) -> str:
        """A pattern with this image's name in place of ``{}``, or its parts in place of as many ``{}``.

        Args:
            pattern: such as 'depth/{}.png'.
            where: what the pattern is, for the message.

        Raises:
            ValueError: the number of ``{}`` is neither 1 nor that of the parts.
        """
        count = pattern.count("{}")
        if count > 1 and count != len(self.parts):
            raise ValueError(
                f"{where}: {pattern!r} has {count} {{}}, the images' pattern {len(self.parts)} wildcards; give one "
                "{} for the whole name, or one for each wildcard."
            )
        pieces = pattern.split("{}")
        return pieces[0] + "".join(
            part + piece for part, piece in zip([self.name] if count == 1 else self.parts, pieces[1:], strict=False)
        )


def find(root: Path, images: str) -> list[FoundImage]:
    """The image files that a pattern matches, sorted by path; hidden files are skipped.

    Args:
        root: folder that the pattern starts from.
        images: such as 'photos/*.jpg', or a folder.

    Raises:
        ValueError: the folder is missing, the pattern leaves it, or nothing matches.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give root= the folder that holds your images.")
    if Path(images).is_absolute() or ".." in Path(images).parts:
        raise ValueError(f"images={images!r}: give a pattern under root={str(root)!r}, such as 'photos/*.jpg'.")
    images = Path(images).as_posix()
    if not WILDCARD.search(images) and (root / images).is_dir():
        images += "/*"
    paths, others = matching(root, images)
    if not paths:
        nothing = _nothing(root, images, [path for path in others if path.is_file()])
        raise ValueError(f"{nothing}; give images= a pattern such as 'photos/*.jpg'.")
    regex = _regex(images)
    return [_found(path, path.relative_to(root).as_posix(), regex) for path in paths]


def _regex(images: str) -> re.Pattern[str]:
    """A pattern with a group for every wildcard."""
    regex = ""
    for place, piece in enumerate(WILDCARD.split(images)):
        literal = place % 2 == 0
        regex += re.escape(piece) if literal else AS_REGEX.get(piece) or f"({piece.replace('[!', '[^')})"
    return re.compile(regex)


def _found(path: Path, relative: str, regex: re.Pattern[str]) -> FoundImage:
    match = regex.fullmatch(relative)
    if match is None or not match.groups():  # no wildcard
        return FoundImage(path, (), path.stem)
    parts, name = list(match.groups()), relative[match.start(1) : match.end(len(match.groups()))]
    if relative.endswith(name):  # the last wildcard took the suffix too
        parts[-1], name = parts[-1].removesuffix(path.suffix), name.removesuffix(path.suffix)
    return FoundImage(path, tuple(part.strip("/") for part in parts), name)


def _nothing(root: Path, images: str, matched: list[Path]) -> str:
    if matched:
        return f"{root / images}: matches {matched[0].name} but no image ({', '.join(SUFFIXES)})"
    folder = root / WILDCARD.split(images)[0].rpartition("/")[0]
    while not folder.is_dir():
        folder = folder.parent
    entries = sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    names = ", ".join(entry.name + "/" * entry.is_dir() for entry in entries[:8]) + (
        ", ..." if len(entries) > 8 else ""
    )
    return f"{root / images}: matches nothing; {folder} holds {names or 'nothing'}{what_is_there(entries)}"


# -- splits -----------------------------------------------------------------------------------------------------------
def names_of_split(root: Path, found: list[FoundImage], split: str | Sequence[str]) -> list[FoundImage]:
    """The images of a split: a contiguous share of them, or those that a text file lists.

    Args:
        root: folder of the data set.
        found: all images, sorted.
        split: two shares such as ('0%', '80%') or '0%:80%', or the name of a file.

    Raises:
        ValueError: shares that cannot be, no such file, or a line that names no image.
    """
    shares = split.split(":") if isinstance(split, str) and "%" in split else split
    if not isinstance(shares, str | list | tuple):
        raise ValueError(f"split={split!r}: give the name of a list, or shares such as ('0%', '80%').")
    if not isinstance(shares, str):
        return _share(found, list(shares), split)
    places = [root / shares, root / "splits" / f"{shares}.txt", root / f"{shares}.txt"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        wanted = ", ".join(map(str, places))
        raise ValueError(
            f"split={split!r}: none of {wanted} is there; write one with a name a line, use {{split}} in the "
            "patterns, or give shares such as split=('0%', '80%')."
        )
    return _listed(found, file, root)


def _share(found: list[FoundImage], shares: list[str], split: object) -> list[FoundImage]:
    matches = [SHARE.fullmatch(share) if isinstance(share, str) else None for share in shares]
    ends = [float(match[1]) / 100 for match in matches if match]
    if len(ends) != 2 or len(matches) != 2 or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(
            f"split={split!r}: give two rising shares from 0% to 100%, such as ('0%', '80%') or '80%:100%'."
        )
    first, end = (round(share * len(found)) for share in ends)
    if first == end:
        raise ValueError(f"split={split!r}: there is no image between these shares of {len(found)}; give a larger one.")
    return found[first:end]


def _listed(found: list[FoundImage], file: Path, root: Path) -> list[FoundImage]:
    sure: dict[str, FoundImage] = {}
    loose: dict[str, list[FoundImage]] = {}
    for image in found:
        sure |= {image.name: image, image.path.relative_to(root).as_posix(): image}
        for name in {image.path.name, image.path.stem}:
            loose.setdefault(name, []).append(image)
    chosen: dict[Path, FoundImage] = {}
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text in UTF-8 ({error}); save it as one, with one name a line.") from None
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        fits = [sure[name]] if name in sure else loose.get(name, [])
        if len(fits) != 1:
            what = f"means {len(fits)} images" if fits else f"names none of the {len(found)} images"
            raise ValueError(f"{file}, line {number}: {name!r} {what}; write names such as {found[0].name!r}.")
        if fits[0].path in chosen:
            raise ValueError(f"{file}, line {number}: {name!r} is listed twice; remove one.")
        chosen[fits[0].path] = fits[0]
    if not chosen:
        raise ValueError(f"{file}: lists no image; write one name a line, such as {found[0].name!r}.")
    return list(chosen.values())
