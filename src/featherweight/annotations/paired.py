"""Masks that are picture files: which of a folder's pictures is the mask of which, by folders and names alone.

A folder says what it holds by its name (`images`, `masks`), or by what its name has more than another's (`train`,
`train_labels`); where no folder does, a file says it (`7.jpg`, `7_mask.png`). With these words aside, a picture and its
mask stand in the same place and have the same name. Imports errors and the folder's own files.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.annotations.labels import Masked, Masks
from featherweight.annotations.tree import ORDER, Tree, dealt, part_of, read_lines, settle
from featherweight.errors import DataError, LabelError, display

MAX_LIST_BYTES = 64 * 2**20
PICTURES = frozenset("images image imgs img jpegimages pictures photos input inputs frames".split())  # noqa: SIM905
# By preference, where several are there.
MASKS = (
    "masks", "mask", "segmentationclass", "segmentation", "segmentations", "segmentation_masks", "gt", "groundtruth",
    "ground_truth", "targets", "labels", "label", "annotations", "annotation",
)  # fmt: skip
_FOLDER = re.compile(r"(.+?)(?:[_-](masks?|labels?|gt|annotations?|segmentations?)|(annot))", re.IGNORECASE)
_NAME = re.compile(r"[_\-. ](masks?|gt|labels?|annotations?|seg)(?=[_\-. ]|$)", re.IGNORECASE)
USUAL = frozenset([*MASKS, *(name + "s" for name in MASKS), "annot"])
Place = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Role:
    """What a file's folders say of it."""

    kind: str  # picture, mask, or nothing
    word: str  # that says mask
    place: Place  # folders without the words, name without ending


def find(tree: Tree, strict: bool) -> Masks | None:
    """The pictures and masks of a folder, or None where it has none.

    `strict`: only where nothing else can be meant: half of the pictures and of the masks have a partner, and no
    folders of classes lie beside them.

    Raises:
        DataError: a list of a part cannot be read.
    """
    roles = {file: _role(tree, file) for file in tree.pictures}
    for chosen in (_by_folders(tree, roles), None if strict and _has_folders(tree) else _by_names(tree)):
        if chosen is None:
            continue
        pictures, masks, word = chosen
        pairs = _pairs(tree, pictures, masks)
        matched = sum(isinstance(mask, Path) for mask in pairs.values())
        if matched and (not strict or 2 * matched >= max(len(pictures), len(masks))):
            return _read(tree, pictures, masks, pairs, word)
    return None


def unusual(source: str) -> str | None:
    """The name of a masks' folder where it says more than that there are masks, else None."""
    return None if source.lower() in USUAL else source


Chosen = tuple[dict[Path, Place], dict[Path, Place], str]  # pictures, masks, what the masks are told by


def _role(tree: Tree, file: Path) -> Role:
    kind, word, kept = "", "", []
    for folder in tree.folders(file):
        name = folder.lower()
        split = _FOLDER.fullmatch(folder)
        if name in PICTURES:
            kind = kind or "picture"
        elif name in MASKS:
            kind, word = "mask", name
        elif split:
            kind, word = "mask", (split[2] or split[3]).lower()
            kept += [] if split[1].lower() in PICTURES else [split[1]]
        else:
            kept.append(folder)
    return Role(kind, word, (tuple(kept), file.stem))


def _by_folders(tree: Tree, roles: Mapping[Path, Role]) -> Chosen | None:
    """Pictures and masks by the words in their folders; of several kinds of masks the one with the most pairs."""
    has = {role.kind for role in roles.values()}
    if "mask" not in has:
        return None
    mine = "picture" if "picture" in has else ""
    pictures = {file: role.place for file, role in roles.items() if role.kind == mine}
    places = set(pictures.values())
    kinds: dict[str, dict[Path, Place]] = defaultdict(dict)
    for file, role in roles.items():
        if role.kind == "mask":
            folders, stem = role.place
            bare = folders, _NAME.sub("", stem, count=1)
            kinds[role.word][file] = role.place if role.place in places or bare not in places else bare
    best = max(kinds, key=lambda word: (len(places & set(kinds[word].values())), -_rank(word)))
    return (pictures, kinds[best], best) if pictures else None


def _rank(word: str) -> int:
    return MASKS.index(word) if word in MASKS else len(MASKS)


def _by_names(tree: Tree) -> Chosen | None:
    """Pictures and masks by the words in their names."""
    places = {file: (tree.folders(file), file.stem) for file in tree.pictures}
    names = set(places.values())
    masks, words = {}, Counter[str]()
    for file, (folders, stem) in places.items():
        bare = folders, _NAME.sub("", stem, count=1)
        if bare[1] != stem and bare in names:
            masks[file] = bare
            words.update(word.lower() for word in _NAME.findall(stem)[:1])
    pictures = {file: place for file, place in places.items() if file not in masks}
    return (pictures, masks, words.most_common(1)[0][0]) if masks else None


def _has_folders(tree: Tree) -> bool:
    """Whether pictures lie in folders that may be classes."""
    names = {name for file in tree.pictures for name in tree.folders(file)}
    return any(part_of([name]) is None and name.lower() not in PICTURES for name in names)


def _pairs(tree: Tree, pictures: Mapping[Path, Place], masks: Mapping[Path, Place]) -> dict[Path, Path | str]:
    """Picture → its mask, or why that cannot be told."""
    of_mask, of_picture = defaultdict(list), defaultdict(list)
    for mask, place in masks.items():
        of_mask[place].append(mask)
    for picture, place in pictures.items():
        of_picture[place].append(picture)
    pairs: dict[Path, Path | str] = {}
    for picture, place in pictures.items():
        found, others = of_mask.get(place, []), of_picture[place]
        if len(found) > 1:
            pairs[picture] = f"{len(found)} masks are for it: {', '.join(map(tree.show, found))}"
        elif found and len(others) > 1:
            pairs[picture] = f"{tree.show(found[0])} is for {len(others)} pictures: {', '.join(map(tree.show, others))}"
        elif found:
            pairs[picture] = found[0]
    return pairs


def _read(
    tree: Tree,
    pictures: Mapping[Path, Place],
    masks: Mapping[Path, Place],
    pairs: Mapping[Path, Path | str],
    word: str,
) -> Masks:
    found = [(picture, mask) for picture, mask in pairs.items() if isinstance(mask, Path)]
    by_folder = any(mask.parent != picture.parent for picture, mask in found)
    masked_in = {picture.parent for picture in pairs}
    read = [picture for picture in pictures if picture.parent in masked_in]
    parts, missing = _parts(tree, read)
    places = set(pictures.values())
    missing += [tree.show(mask) for mask, place in masks.items() if place not in places]
    others = Counter(file.parent for file in tree.pictures if file not in masks and file.parent not in masked_in)
    return Masks(
        "folders" if by_folder else "names",
        word,
        tuple(Masked(one, parts[one], pairs[one]) for one in read if one in pairs and one in parts),
        tuple(one for one in read if one not in pairs and one in parts),
        tuple(missing),
        tuple(one for one in read if one not in parts),
        tuple(f"{count} pictures in {tree.show(folder)}" for folder, count in others.items()),
    )


def _parts(tree: Tree, pictures: Sequence[Path]) -> tuple[dict[Path, str | None], list[str]]:
    """(picture → part, names in the lists that no picture has): by lists of names, or by folders."""
    lists = _lists(tree)
    named: dict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        for name in (picture.name, picture.stem):
            named[name].append(picture)
    meant = [(part, file, line, _meant(named, line)) for part, file in lists for line in _lines(tree, file)]
    if not any(found for *_, found in meant):
        return settle({picture: part_of(tree.folders(picture)) for picture in pictures}), []
    missing = [f"{display(line[:200])} in {tree.show(file)}" for _, file, line, found in meant if found is None]
    parts = settle(dealt((part, found) for part, _, _, found in meant if found is not None))
    return (parts if any(parts.values()) else dict.fromkeys(pictures)), missing


def _lists(tree: Tree) -> list[tuple[str, Path]]:
    """(part, file) of the lists, those of ImageSets/Segmentation alone where there are such."""
    found = []
    for file in tree.others:
        part = "train" if file.stem.lower() == "trainval" else file.stem.lower()
        if file.suffix.lower() == ".txt" and part in ORDER and len(tree.folders(file)) <= 3:
            found.append((part, file))
    own = [one for one in found if one[1].parent.name.lower() == "segmentation"]
    found = own or [one for one in found if one[1].parent.parent.name.lower() != "imagesets"]
    whole = {file.parent for part, file in found if file.stem.lower() == "train"}
    return [one for one in found if one[1].stem.lower() != "trainval" or one[1].parent not in whole]


def _lines(tree: Tree, file: Path) -> list[str]:
    try:
        return list(filter(None, read_lines(file, MAX_LIST_BYTES)))
    except LabelError as error:
        raise DataError(f"{tree.show(file)}: {error}; wanted a name of a picture a line") from error


def _meant(named: Mapping[str, Sequence[Path]], line: str) -> Path | None:
    """The picture that a line names: a name, a path, or a path and that of its mask. Nothing is opened by it."""
    for written in (line, *line.split()[:1]):
        path = written.replace("\\", "/")
        found = named.get(path.rsplit("/", 1)[-1], ())
        fitting = [one for one in found if len(found) == 1 or one.as_posix().endswith("/" + path.lstrip("/."))]
        if len(set(fitting)) == 1:
            return fitting[0]
    return None
