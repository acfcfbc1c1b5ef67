"""`fpn monitor`: whether a model is still asked what it was made for, and answers as it did."""

import json
import logging
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from base.errors import UserError
from base.local_files import user_errors_of_writing, write_text
from evaluation.drift import FEWEST, Check, compare_metrics, judge
from evaluation.metrics import default_metrics
from evaluation.results import Metric
from pipeline.pages.monitor_page import JUDGED, write_monitor_page
from pipeline.pushed.drift import compare
from pipeline.pushed.pushed_model import find_version
from pipeline.pushed.reference import SUMMARIES, Reference, as_answers, read_reference
from pipeline.pushed.traffic import read_traffic

PAGE, RESULT = "monitor.html", "monitor.json"
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}

logger = logging.getLogger("fpn")


@dataclass(frozen=True)
class Monitored:
    """What was found.

    Attributes:
      time: UTC, as 2026-01-01T12:00:00+00:00.
      model: folder of the version.
      captured: folder of the captured requests.
      since: earlier ones were passed over; None if none were.
      rows: captured rows of the version.
      others: captured rows of other versions, which were passed over.
      checks: all of them, made or not.
      metrics: with 95 % intervals, by name, of the rows that have a label; empty if there are none.
      failed: whether a check fails.
      page: the page that shows it.
    """

    time: str
    model: str
    captured: str
    since: str | None
    rows: int
    others: int
    checks: list[Check]
    metrics: dict[str, Metric]
    failed: bool
    page: str


def monitor(
    model: Path,
    captured: Path,
    since: str,
    reference: Path | None,
    labels: Path | None,
    output: Path | None,
    public_key: Path | None = None,
) -> Monitored:
    """Compares captured requests with the model's reference; writes PAGE and RESULT, and if it can, RESULT beside the requests.

    Args:
      model: a SavedModel, or a folder of numbered versions, of which the newest is used.
      captured: as `traffic.read_traffic`.
      since: earlier requests are passed over; see `parse_since`.
      reference: as `reference.read_reference`.
      labels: as `traffic.read_traffic`.
      output: folder to write to; where the requests are if None. If the requests lie elsewhere and can only be read, RESULT is
        not written there.
      public_key: as in `find_version`.

    Raises:
      UserError: the model, the requests, the reference or the labels can't be used, or nothing can be compared.
    """
    beside = captured if captured.is_dir() else captured.parent
    output = output or beside
    now = datetime.now(UTC)
    first = parse_since(since, now)
    version = find_version(model, public_key)
    known = read_reference(version, reference)
    traffic = read_traffic(captured, first, known, labels)
    checks = compare(traffic.sample.select(list(SUMMARIES)).to_pandas(), as_answers(traffic.sample), known)
    metrics = {}
    if labels:
        metrics = traffic.measure(default_metrics(traffic.labelled.multi_label))
        checks.append(_compare_accuracy(metrics, known, len(traffic.times)))
    checks = judge(checks)
    if all(check.p is None for check in checks):
        raise UserError(f"{captured}: nothing can be compared: {next(check.note for check in checks)}")
    result = Monitored(
        now.isoformat(timespec="seconds"),
        str(version.resolve()),
        str(captured.resolve()),
        first.isoformat() if first else None,
        traffic.rows,
        traffic.others,
        checks,
        metrics,
        any(check.failed for check in checks),
        str((output / PAGE).resolve()),
    )
    with user_errors_of_writing(output, "--output"):
        write_monitor_page(captured, known, traffic, checks, metrics, output / PAGE)
        write_text(output / RESULT, _as_json(result))
    if output.resolve() != beside.resolve():
        try:
            write_text(beside / RESULT, _as_json(result))
        except OSError as error:
            reason = error.strerror or str(error)
            logger.warning("%s: can't be written (%s), so fpn serve will not show the verdicts", beside / RESULT, reason)
    return result


def _as_json(result: Monitored) -> str:
    return json.dumps(asdict(result), indent=2) + "\n"


def parse_since(text: str, now: datetime) -> datetime | None:
    """The time that `--since` means.

    Args:
      text: "7d", "12h", "30m", a time in ISO 8601, which is UTC if it has no zone, or "all".
      now: the present, with a zone.

    Raises:
      UserError: it is neither.
    """
    if text == "all":
        return None
    try:
        if found := re.fullmatch(r"(\d{1,6})([mhd])", text, re.ASCII):
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:  # OverflowError: before the year 1
        raise UserError(f"--since {text}: give 7d, 12h, 30m, a time such as 2026-11-30T07:00, or all") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _compare_accuracy(metrics: dict[str, Metric], known: Reference, rows: int) -> Check:
    name, measure = f"labels: {JUDGED}", "difference from the evaluated one"
    if rows < FEWEST:
        return Check(name, measure, note=f"too few: {rows:,} labels; give {FEWEST} or more")
    if JUDGED not in known.metrics or metrics[JUDGED].lower is None:
        return Check(name, measure, note=f"the version's record has no {JUDGED} with an interval")
    difference, p = compare_metrics(metrics[JUDGED], known.metrics[JUDGED])
    return Check(name, measure, difference.value, p, difference.lower, difference.upper)
