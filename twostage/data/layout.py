"""Find the images of a data set: MVTec layout, or a manifest."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twostage.config import DataConfig
from twostage.data.listing import Lazy, files_in
from twostage.data.manifest import scan_manifest
from twostage.data.samples import GOOD, Finding, ImageSet, Sample, require_clean
from twostage.errors import DataError

EXPECTED = (
    "expected train/good/<images of good parts>, and to evaluate also test/good/<images>, test/<defect>/<images> and "
    "ground_truth/<defect>/<stem>_mask.* or <stem>.*; or a CSV manifest (data.manifest)"
)

_LITTER = ("thumbs.db", "desktop.ini")


def find_samples(config: DataConfig) -> ImageSet:
    """List the images of ``config.root`` (MVTec layout) or ``config.manifest`` (CSV). No image is opened.

    Where only ``config.shards`` is given, no image is listed.

    MVTec layout: ``train/good``, ``test/good``, ``test/<defect>``, ``ground_truth/<defect>/<stem>_mask.*`` or
    ``<stem>.*``. There may be no ``test`` (for training only) and no ``ground_truth`` (then no sample has a mask).
    Where there are masks, every defective image needs one. Every file is listed whatever its name ends in, except
    hidden ones, Thumbs.db and desktop.ini.

    Manifest: the columns path, split (train or test), kind, mask; relative paths start at the manifest's folder.

    Returns:
        The images sorted by path; ``name`` is the name of the folder, or of the manifest without its ending.

    Raises:
        DataError: neither root nor manifest is given; a folder or the manifest is missing, empty or not of this form;
            a mask is missing, ambiguous, or without an image. Everything that is wrong is listed at once.
    """
    image_set, findings = scan(config)
    require_clean(findings)
    return image_set


def scan(config: DataConfig) -> tuple[ImageSet, list[Finding]]:
    """As ``find_samples``, but whatever is wrong is returned beside what could be found.

    Raises:
        DataError: neither root nor manifest is given.
    """
    if config.manifest is not None:
        return scan_manifest(config.manifest)
    if config.root is not None:
        return scan_folder(config.root)
    if config.shards is not None:
        return ImageSet(config.shards.resolve().name, (), ()), []
    raise DataError("no data given; accepted: data.root (a folder in MVTec layout) or data.manifest (a CSV file)")


def scan_folder(root: Path) -> tuple[ImageSet, list[Finding]]:
    """As ``scan`` for a folder in MVTec layout."""
    findings: list[Finding] = []
    name = root.resolve().name
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "there is no such folder"
        return ImageSet(name, (), ()), [Finding(root, f"{problem}; {EXPECTED}", fatal=True)]
    train = _scan_train(root, findings)
    test = _scan_test(root, findings)
    return ImageSet(name, train, test), findings


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a desktop leaves behind."""
    return name.startswith(".") or name.casefold() in _LITTER


@dataclass
class _Listing:
    files: Sequence[Path] = ()
    folders: list[Path] = field(default_factory=list)


def _list(folder: Path, findings: list[Finding]) -> _Listing:
    listing = _Listing()

    def names_of_files(entries: Iterable[os.DirEntry[str]]) -> Iterator[str]:
        for entry in entries:
            if is_litter(entry.name):
                continue
            if entry.is_file():
                yield entry.name
            elif entry.is_dir():
                listing.folders.append(folder / entry.name)
            else:
                findings.append(Finding(folder / entry.name, "is neither a file nor a folder (broken link?)", True))

    try:
        with os.scandir(folder) as entries:
            listing.files = files_in(folder, names_of_files(entries))
    except OSError as error:
        findings.append(
            Finding(folder, f"cannot be listed ({error.strerror}); accepted: a readable folder", fatal=True)
        )
    listing.folders.sort()
    return listing


def _note_unread(paths: Iterable[Path], expected: str, findings: list[Finding]) -> None:
    findings.extend(Finding(path, f"is not read; {expected}", fatal=False) for path in paths)


def _list_images(folder: Path, findings: list[Finding]) -> Sequence[Path]:
    """The files of one folder of images; it must hold some, and folders inside it are not read."""
    before = len(findings)
    listing = _list(folder, findings)
    if not listing.files and len(findings) == before:
        findings.append(Finding(folder, "holds no images; accepted: at least one", fatal=True))
    _note_unread(listing.folders, f"images lie directly in {folder.name}", findings)
    return listing.files


def _scan_train(root: Path, findings: list[Finding]) -> Sequence[Sample]:
    good = root / "train" / GOOD
    if not good.is_dir():
        findings.append(Finding(root, f"there is no train/{GOOD}{_hint(root)}; {EXPECTED}", fatal=True))
        return ()
    beside = _list(root / "train", findings)
    others = [*beside.files, *(folder for folder in beside.folders if folder != good)]
    _note_unread(others, f"only train/{GOOD} is used for training", findings)
    paths = _list_images(good, findings)
    return Lazy(len(paths), lambda number: Sample(paths[number], GOOD))


def _hint(root: Path) -> str:
    """What the caller may have meant by a folder without train/good."""
    categories = [folder.name for folder in _list(root, []).folders if (folder / "train" / GOOD).is_dir()]
    if categories:
        return f" (give one category: this folder holds {', '.join(categories)})"
    for folder, name in ((root / "train", "train"), (root, "this folder")):
        files = _list(folder, []).files if folder.is_dir() else []
        if files:
            return f" ({name} itself holds {len(files)} files, as {files[0].name}: move good images to train/{GOOD})"
    return ""


def _scan_test(root: Path, findings: list[Finding]) -> tuple[Sample, ...]:
    test, truth = root / "test", root / "ground_truth"
    if not test.is_dir():
        findings.append(Finding(root, "there is no test folder: nothing to evaluate on", fatal=False))
        if truth.is_dir():
            findings.append(Finding(truth, "holds masks, but there is no test folder with their images", fatal=True))
        return ()
    listing = _list(test, findings)
    _note_unread(listing.files, f"expected in test/{GOOD} or test/<defect>", findings)
    if not listing.folders:
        findings.append(Finding(test, f"holds no folders; {EXPECTED}", fatal=True))
    kinds = [folder.name for folder in listing.folders]
    if kinds and GOOD not in kinds:
        findings.append(
            Finding(test, f"there is no {GOOD} folder: detection cannot be measured without it", fatal=False)
        )
    has_masks = truth.is_dir()
    if not has_masks and set(kinds) - {GOOD}:
        findings.append(Finding(root, "there is no ground_truth folder: pixels cannot be evaluated", fatal=False))
    samples: list[Sample] = []
    for folder in listing.folders:
        images = _list_images(folder, findings)
        if folder.name == GOOD or not has_masks:
            samples.extend(Sample(path, folder.name) for path in images)
        else:
            samples.extend(_match_masks(images, folder, truth / folder.name, findings))
    if has_masks:
        _scan_unused_truth(truth, set(kinds), findings)
    return tuple(samples)


def _match_masks(images: Sequence[Path], folder: Path, truth: Path, findings: list[Finding]) -> list[Sample]:
    """Pair the images of one defect with its masks by stem, and report all that have no partner or several."""
    masks = _list(truth, findings) if truth.is_dir() else _Listing()
    _note_unread(masks.folders, f"masks lie directly in {truth.name}", findings)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for mask in masks.files:
        by_stem[mask.stem].append(mask)
    accepted = f"accepted: {truth}/<stem>_mask.* or <stem>.*"
    users: dict[Path, list[Path]] = {mask: [] for mask in masks.files}
    samples = []
    for image in images:
        found = by_stem.get(f"{image.stem}_mask", []) + by_stem.get(image.stem, [])
        for mask in found:
            users[mask].append(image)
        if not found:
            findings.append(Finding(image, f"has no mask; {accepted}", fatal=True))
        elif len(found) > 1:
            names = ", ".join(mask.name for mask in found)
            findings.append(Finding(image, f"has {len(found)} masks ({names}); accepted: one", fatal=True))
        samples.append(Sample(image, folder.name, found[0] if found else None))
    for mask, used_by in users.items():
        if not used_by:
            findings.append(Finding(mask, f"is a mask without an image in {folder}; {accepted}", fatal=True))
        elif len(used_by) > 1:
            names = ", ".join(image.name for image in used_by)
            findings.append(Finding(mask, f"is the mask of {len(used_by)} images ({names}); accepted: one", fatal=True))
    return samples


def _scan_unused_truth(truth: Path, kinds: set[str], findings: list[Finding]) -> None:
    listing = _list(truth, findings)
    _note_unread(listing.files, "masks lie in ground_truth/<defect>", findings)
    for folder in listing.folders:
        if folder.name == GOOD:
            problem = "is a mask of a good image; accepted: masks of defects only"
        elif folder.name not in kinds:
            problem = f"is a mask without an image: there is no test/{folder.name}"
        else:
            continue
        findings.extend(Finding(mask, problem, fatal=True) for mask in _list(folder, findings).files)
