"""Assigns rows to splits: as given by the data, by hash, stratified, or in folds. A group is always in one split."""

import bisect
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection

from base.errors import UserError
from images.dataset.row import UNLABELLED, Row
from images.settings import SourceSettings, SpanShares, SplitShares
from models import features

_MAX_NAMED = 5  # largest number of classes that a message names


def split_names(settings: SourceSettings) -> tuple[str, ...]:
    """The splits that ingestion writes: train, eval and test, or the folds; a single one for data that is not for training."""
    if not settings.labelled:
        return (UNLABELLED,)
    return fold_names(settings.folds) if settings.folds else features.SPLITS


def trained_splits(settings: SourceSettings) -> tuple[str, ...]:
    """Those of `split_names` that a Trainer reads: fits a model to, or watches."""
    return tuple(name for name in split_names(settings) if settings.labelled and name != "test")


def fold_names(folds: int) -> tuple[str, ...]:
    """Names of the folds of a cross-validation: fold_1, fold_2, ..."""
    return tuple(f"fold_{number}" for number in range(1, folds + 1))


def assign_splits(folder: str, rows: list[Row], settings: SourceSettings) -> list[Row]:
    """Assigns a split to every row that is not set aside.

    A split that the data does not give is taken from train. Rows without a split are assigned by
    the hash of their group, so they stay in their split when data is added. With `splits.stratify` or `folds` they are
    assigned by `deal`, which needs all rows at once. With `spans`, rows of older spans lose the split train, but for the share
    to replay; so a row's split is the same as it was when its span was the newest.

    Args:
      folder: the data folder, for messages.
      rows: rows with the splits that the data gives, or with "".
      settings: settings of the data set. With `folds`, all rows except those given as test go into the folds.

    Returns:
      The rows, in the same order.

    Raises:
      UserError: a split is empty or lacks a class, a group is in two splits, or there are fewer than two classes.
    """
    if not settings.labelled:
        return [row if row.reason else row.in_split(UNLABELLED) for row in rows]
    taken = [row for row in rows if not row.reason]
    _check_groups(taken)
    folds = settings.folds
    spread = _target_splits(taken)
    assigned = (
        _assign_to_folds(folder, rows, taken, folds) if folds else _assign_to_splits(rows, taken, settings.splits, spread)
    )
    if settings.spans and not folds:
        assigned = _leave_out_old(assigned, settings.spans)
    taken = [row for row in assigned if row.split in split_names(settings)]
    labels = {label for row in taken for label in row.labels}
    _check_labels(folder, rows, labels, settings)
    if not folds:
        could_stratify = spread if len(spread) > 1 and not settings.splits.stratify else ()
        _check_splits(folder, taken, labels | set(settings.labels or ()), could_stratify)
    return assigned


def _leave_out_old(rows: list[Row], spans: SpanShares) -> list[Row]:
    """The rows; those of the train split of older spans that are not replayed have no split any more.

    Groups are replayed by a hash of their name that tells nothing about their split, and always the same ones.
    """
    newest = sorted({row.span for row in rows})[-spans.newest :]

    def is_used(row: Row) -> bool:
        return row.split != "train" or row.span in newest or hash_of(f"replay/{row.group}") < spans.replay * 2**256

    return [row if is_used(row) else row.in_split("") for row in rows]


def hash_of(text: str) -> int:
    """A hash of 256 bits, uniformly distributed, that is the same on every run and machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def deal(groups: dict[str, Counter[str]], shares: list[float]) -> dict[str, int]:
    """Assigns groups to splits so that every split gets the same share of each class, as far as groups allow.

    Groups are assigned one by one, the largest first. Each goes to the split s that minimises the sum over the classes c of

        n[group, c] (n[s, c] + n[group, c] / 2) / (n[c]^2 share[s]),

    where n is a number of images. This choice increases least Pearson's distance between the shares that the splits have of
    each class and the wanted shares: the sum over s and c of (n[s, c] / n[c] - share[s])^2 / share[s]. The last groups of a
    class are reserved for splits that have no image of it. Of equally good splits, the one with the fewest images relative to
    its share is taken.

    Args:
      groups: group to number of images per class.
      shares: wanted share of each split, above 0; the sum is 1.

    Returns:
      Group to position of its split in `shares`.
    """
    classes: Counter[str] = Counter()
    left: Counter[str] = Counter()  # number of groups of each class that have no split yet
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


def _target_splits(taken: list[Row]) -> tuple[str, ...]:
    """The splits among which rows that have no split or are given as train are divided."""
    given = {row.split for row in taken} - {""}
    return tuple(split for split in features.SPLITS if split not in given or split == "train")


def _assign_to_splits(rows: list[Row], taken: list[Row], splits: SplitShares, spread: tuple[str, ...]) -> list[Row]:
    buckets = [splits.buckets[split] for split in spread]
    if splits.stratify:
        shares = [count / sum(buckets) for count in buckets]
        dealt = deal(_count_by_group([row for row in taken if row.split in ("", "train")]), shares)

        def split_of(group: str) -> str:
            return spread[dealt[group]]
    else:
        bounds = list(itertools.accumulate(buckets))

        def split_of(group: str) -> str:
            return spread[bisect.bisect(bounds, hash_of(group) % bounds[-1])]

    return _replace_splits(rows, ("", "train"), split_of)


def _assign_to_folds(folder: str, rows: list[Row], taken: list[Row], folds: int) -> list[Row]:
    groups = _count_by_group([row for row in taken if row.split != "test"])
    if len(groups) < folds:
        raise UserError(f"{folder}: {len(groups)} groups can't fill {folds} folds; give more groups, or fewer folds (--folds)")
    dealt = deal(groups, [1 / folds] * folds)
    names = fold_names(folds)
    return _replace_splits(rows, ("", "train", "eval"), lambda group: names[dealt[group]])


def _count_by_group(rows: list[Row]) -> dict[str, Counter[str]]:
    """Number of images per class in each group. Groups of one image share a counter, to save memory."""
    of_one: dict[tuple[str, ...], Counter[str]] = {}
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        labels = row.labels or ("",)  # images without a class are stratified like a class of their own
        one = of_one.setdefault(labels, Counter(labels))
        groups[row.group] = groups[row.group] + one if row.group in groups else one
    return groups


def _replace_splits(rows: list[Row], from_splits: tuple[str, ...], split_of: Callable[[str], str]) -> list[Row]:
    return [row if row.reason or row.split not in from_splits else row.in_split(split_of(row.group)) for row in rows]


def _check_labels(folder: str, rows: list[Row], labels: set[str], settings: SourceSettings) -> None:
    if settings.multi_label:
        if not labels:
            raise UserError(
                f"{folder}: no image has a label; name the classes in the manifest's label column{_set_aside_note(rows)}"
            )
        return
    if len(labels) < 2:
        raise UserError(
            f"{folder}: a classifier needs two classes or more, found only {', '.join(labels) or 'none'}{_set_aside_note(rows)}"
        )
    for label in sorted(labels):
        parts = {part.strip() for part in features.split_labels(label, multi_label=True)} - {""}
        if len(parts) > 1 and labels.intersection(parts):
            raise UserError(
                f"{folder}: the label {label} looks like {len(parts)} classes; "
                f"set data.multi_label to true, or rename the class if it is one"
            )


def _set_aside_note(rows: list[Row]) -> str:
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
            divided = len({row.group for row in rows if row.split in could_stratify})
            stratify = (
                "set data.splits.stratify to true, " if split in could_stratify and divided >= len(could_stratify) else ""
            )
            raise UserError(
                f"{folder}: the {split} split would be empty ({len(rows)} images in {count} groups); {stratify}"
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
            f"{label} ({len(groups[label])} group{'' if len(groups[label]) == 1 else 's'} in all)"
            for label in missing[:_MAX_NAMED]
        )
        more = f" and {len(missing) - _MAX_NAMED} other classes" if len(missing) > _MAX_NAMED else ""
        enough = all(len(groups[label]) >= len(could_stratify) for label in missing)
        stratify = "set data.splits.stratify to true, " if split in could_stratify and enough else ""
        raise UserError(
            f"{folder}: the {split} split has no image of {named}{more}; "
            f"{stratify}add images of the class, or leave it out with data.labels"
        )
