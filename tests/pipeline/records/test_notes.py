"""Notes of a run: records, which become lines where they are shown."""

import pytest

from pipeline.records.notes import (
    AnomalyNote,
    DataNote,
    DuplicatesNote,
    LeftOutNote,
    LostNote,
    MadeAgainNote,
    NoBaselineNote,
    Note,
    NotRegisteredNote,
    OtherClassesNote,
    OtherExamplesNote,
    RecoveredNote,
    RegisteredNote,
)

COUNTS = {"exact": 1, "near": 0, "across_classes": 0, "across_splits": 3, "in_train": {}}


@pytest.mark.parametrize(
    ("note", "line"),
    [
        (AnomalyNote("eval", "meta/site: north", "Unexpected: value"), "Anomaly: eval: meta/site: north: Unexpected: value"),
        (DuplicatesNote(COUNTS, "d.csv"), "Leak: 3 images have a duplicate or near duplicate in another split; table d.csv"),
        (NoBaselineNote(), "No served model to compare with: thresholds on the change did not apply"),
        (OtherClassesNote("p", "cow new"), "Not compared with the served model in p: its classes are others (cow new)"),
        (OtherExamplesNote("x"), "No counts of images, classes, rejected files and duplicates: x is of another ExampleGen"),
        (RegisteredNote("http://x", "digits", "3"), "Registered with MLflow at http://x: version 3 of digits"),
        (NotRegisteredNote("no answer", "fpn push"), "Pushed, but not registered: no answer; later: fpn push"),
        (DataNote("Data: {x} {} {0}"), "Data: {x} {} {0}"),
        (LostNote("Lost: 3 images", "table x"), "Lost: 3 images; table x"),
        (RecoveredNote("restored"), "restored"),
        (
            MadeAgainNote("Trainer", "x is gone"),
            "Trainer was run again, for what it had made is not there any more as it was: x is gone",
        ),
        (LeftOutNote(7), "7 images that the data gives as test were left out"),
    ],
)
def test_a_note_is_shown_as_its_line(note: Note, line: str) -> None:
    assert note.lines() == [line]
