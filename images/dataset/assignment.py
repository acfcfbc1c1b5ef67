"""Which row goes into which split: as given, by hash, stratified, or in folds. A group stays together."""

import bisect
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection

from base.errors import UserError
from images.dataset.row import UNLABELLED, Row
from images.settings import SourceSettings, SplitShares
from models import features

_NAMED = 5  # classes that a message names


def split_names(settings: SourceSettings) -> tuple[str, ...]:
    """The splits that ingestion writes: train, eval and test, or folds; one alone of data that is not for training."""
    if not settings.labelled:
        return (UNLABELLED,)
    return fold_names(settings.folds) if settings.folds else features.SPLITS


def fold_names(folds: int) -> tuple[str, ...]:
    """What as many folds are called."""
    return tuple(f"fold_{number}" for number in range(1, folds + 1))


def assign_splits(folder: str, rows: list[Row], settings: SourceSettings) -> list[Row]:
    """Gives every row that is not set aside its split.

    Data that comes with a train and a test split, but without an eval split, gets one out of train. Rows without a split go
    by the hash of their group, which keeps them where they are when data is added; with `splits.stratify`, and into folds,
    they are dealt (see `deal`), which needs all data at once.

    Args:
      folder: the data folder, for messages.
      rows: with the splits that the data gives, or with "".
      settings: of the data set. With `folds`, all rows but those given as test go there.

    Returns:
      The rows, in the same order.

    Raises:
      UserError: a split is empty or lacks a class, a group is in two, or there are fewer than two classes.
    """
    if not settings.labelled:
        return [row if row.reason else row.in_split(UNLABELLED) for row in rows]
    taken = [row for row in rows if not row.reason]
    _check_groups(taken)
    folds = settings.folds
    spread = _spread(taken)
    assigned = _into_folds(folder, rows, taken, folds) if folds else _into_splits(rows, taken, settings.splits, spread)
    taken = [row for row in assigned if row.split in split_names(settings)]
    labels = {label for row in taken for label in row.labels}
    _check_labels(folder, rows, labels, settings)
    if not folds:
        could_stratify = spread if len(spread) > 1 and not settings.splits.stratify else ()
        _check_splits(folder, taken, labels | set(settings.labels or ()), could_stratify)
    return assigned


def hash_of(text: str) -> int:
    """A number that is the same on every run and machine, evenly spread over 256 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def deal(groups: dict[str, Counter[str]], shares: list[float]) -> dict[str, int]:
    """Deals groups to splits so that every split gets the same share of each class, as far as groups allow.

    The largest group first, each goes to the split s that minimises the sum over the classes c of

        n[group, c] (n[s, c] + n[group, c] / 2) / (n[c]^2 share[s]),

    with which Pearson's distance between the splits' shares of the classes and the wanted ones, the sum over s and c of
    (n[s, c] / n[c] - share[s])^2 / share[s], grows least. The last groups of a class are kept for splits that have none of it.
    Among equals it is the split that is filled least for its share.

    Args:
      groups: images of each class in each group.
      shares: of the splits, above 0, in sum 1.

    Returns:
      The position of each group's split.
    """
    classes: Counter[str] = Counter()
    left: Counter[str] = Counter()  # groups of a class that are not dealt yet
    for counts in groups.values():
        classes.update(counts)
        left.update(counts.keys())
    filled: list[Counter[str]] = [Counter() for _ in shares]
    totals = [0] * len(shares)
    split_of = {}
    for group in sorted(groups, key=lambda group: (-groups[group].total(), hash_of(group))):
        counts = groups[group]
        last = [
            label for label in counts if left[label] <= len(shares) and left[label] <= sum(not split[label] for split in filled)
        ]
        costs = []
        for number, (split, share) in enumerate(zip(filled, shares, strict=True)):
            lacking = sum(not split[label] for label in last) if last else 0
            distance = 0.0
            for label, n in counts.items():
                distance += n * (split[label] + n / 2) / classes[label] ** 2
            costs.append((-lacking, distance / share, totals[number] / share, number))
        *_, least = min(costs)
        split_of[group] = least
        for label, n in counts.items():
            filled[least][label] += n
            totals[least] += n
            left[label] -= 1
    return split_of


def _check_groups(rows: list[Row]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.group, row)
        if other.split != row.split:
            one, two = sorted((other, row), key=lambda row: (*features.SPLITS, "").index(row.split))
            raise UserError(
                f"group {row.group} is in the splits {one.split} and {two.split} (files {one.name} and {two.name}); "
                f"a group must stay in one, or the test measures what training has seen"
            )


def _spread(taken: list[Row]) -> tuple[str, ...]:
    """The splits among which rows without a split are shared out, and those given as train."""
    given = {row.split for row in taken} - {""}
    return tuple(
        split for split in features.SPLITS if not given or (split not in given and split == "eval") or split == "train"
    )


def _into_splits(rows: list[Row], taken: list[Row], splits: SplitShares, spread: tuple[str, ...]) -> list[Row]:
    buckets = [splits.buckets[split] for split in spread]
    if splits.stratify:
        shares = [count / sum(buckets) for count in buckets]
        dealt = deal(_groups([row for row in taken if row.split in ("", "train")]), shares)

        def split_of(group: str) -> str:
            return spread[dealt[group]]
    else:
        bounds = list(itertools.accumulate(buckets))

        def split_of(group: str) -> str:
            return spread[bisect.bisect(bounds, hash_of(group) % bounds[-1])]

    return _with_splits(rows, ("", "train"), split_of)


def _into_folds(folder: str, rows: list[Row], taken: list[Row], folds: int) -> list[Row]:
    groups = _groups([row for row in taken if row.split != "test"])
    if len(groups) < folds:
        raise UserError(f"{folder}: {len(groups)} groups can't fill {folds} folds; give more groups, or fewer folds (--folds)")
    dealt = deal(groups, [1 / folds] * folds)
    names = fold_names(folds)
    return _with_splits(rows, ("", "train", "eval"), lambda group: names[dealt[group]])


def _groups(rows: list[Row]) -> dict[str, Counter[str]]:
    """Images of each class in each group; groups of a single image share their counter."""
    of_one: dict[tuple[str, ...], Counter[str]] = {}
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        labels = row.labels or ("",)  # images of no class are to be spread like a class
        one = of_one.setdefault(labels, Counter(labels))
        groups[row.group] = groups[row.group] + one if row.group in groups else one
    return groups


def _with_splits(rows: list[Row], from_splits: tuple[str, ...], split_of: Callable[[str], str]) -> list[Row]:
    return [row if row.reason or row.split not in from_splits else row.in_split(split_of(row.group)) for row in rows]


def _check_labels(folder: str, rows: list[Row], labels: set[str], settings: SourceSettings) -> None:
    if settings.multi_label:
        if not labels:
            raise UserError(
                f"{folder}: no image has a label; name the classes in the manifest's label column{_set_aside(rows)}"
            )
        return
    if len(labels) < 2:
        raise UserError(
            f"{folder}: a classifier needs two classes or more, found only {', '.join(labels) or 'none'}{_set_aside(rows)}"
        )
    for label in sorted(labels):
        parts = {part.strip() for part in label.split(features.LABEL_SEPARATOR)} - {""}
        if len(parts) > 1 and labels.intersection(parts):
            raise UserError(
                f"{folder}: the label {label} looks like {len(parts)} classes; "
                f"set data.multi_label to true, or rename the class if it is one"
            )


def _set_aside(rows: list[Row]) -> str:
    reasons = Counter(row.reason for row in rows if row.reason)
    if not reasons:
        return ""
    reason, count = reasons.most_common(1)[0]
    first = next(row.name for row in rows if row.reason == reason)
    return f"; {reasons.total()} of {len(rows)} are set aside, {count} of them as {first}: {reason}"


def _check_splits(folder: str, rows: list[Row], labels: set[str], could_stratify: Collection[str]) -> None:
    groups: dict[str, set[str]] = defaultdict(set)
    found: dict[str, set[str]] = {split: set() for split in features.SPLITS}
    images = Counter(row.split for row in rows)
    for row in rows:
        found[row.split].update(row.labels)
    for split in features.SPLITS:
        if not images[split]:
            count = len({row.group for row in rows})
            raise UserError(
                f"{folder}: the {split} split would be empty ({len(rows)} images in {count} groups); "
                f"give it more hash buckets (data.splits.{split}), more data, or a split of its own"
            )
    for split in features.SPLITS:
        missing = sorted(labels - found[split])
        if not missing:
            continue
        for row in rows:
            for label in row.labels:
                groups[label].add(row.group)
        named = ", ".join(
            f"{label} ({len(groups[label])} group{'' if len(groups[label]) == 1 else 's'} in all)" for label in missing[:_NAMED]
        )
        more = f" and {len(missing) - _NAMED} other classes" if len(missing) > _NAMED else ""
        enough = all(len(groups[label]) >= len(could_stratify) for label in missing)
        stratify = "set data.splits.stratify to true, " if split in could_stratify and enough else ""
        raise UserError(
            f"{folder}: the {split} split has no image of {named}{more}; "
            f"{stratify}add images of the class, or leave it out with data.labels"
        )
