"""What damaged TFRecord files have lost: stretches of bytes that may hold any number of records."""

from collections.abc import Iterable
from dataclasses import dataclass

from base.errors import UserError
from images.dataset.row import LOST, Row
from images.reason import kind_of


@dataclass(frozen=True)
class Losses:
    """What is lost of a data set.

    Attributes:
      bytes: bytes of the files that can't be read.
      of_bytes: size of all TFRecord files of the data set.
      records: about how many records these bytes hold, by the other records of the same file.
      stretches: number of stretches of bytes, each a row of `rejected.csv`.
      first: the first of them, with its file.
    """

    bytes: int
    of_bytes: int
    records: int
    stretches: int
    first: str

    @property
    def share(self) -> float:
        """Share of the bytes that are lost, 0..1."""
        return self.bytes / max(self.of_bytes, self.bytes, 1)

    def describe(self) -> str:
        """A line for a person."""
        about = f", about {self.records:,} record{'s' if self.records > 1 else ''}" if self.records else ""
        more = f", and {self.stretches - 1} more" if self.stretches > 1 else ""
        return f"Lost: {self.bytes:,} bytes ({self.share:.1%}) of the TFRecord files{about}: {self.first}{more}"

    def check(self, folder: str, max_rejected: float) -> None:
        """Stops the run if too much is lost.

        Args:
          folder: the data folder, for the message.
          max_rejected: largest share of the bytes that may be lost.

        Raises:
          UserError: more is lost.
        """
        if self.share > max_rejected:
            raise UserError(
                f"{folder}: {self.describe()}\n"
                f"Copy the files again from where they are whole, or raise data.max_rejected ({max_rejected:g})"
            )


def find_losses(rows: Iterable[Row], of_bytes: int) -> Losses | None:
    """Adds up what is lost; None if nothing is.

    Args:
      rows: all rows of the data set.
      of_bytes: size of all its TFRecord files.
    """
    lost = sorted((row for row in rows if kind_of(row.reason) == LOST), key=lambda row: (row.path, row.record))
    if not lost:
        return None
    return Losses(
        sum(row.size for row in lost),
        of_bytes,
        sum(row.lost_records for row in lost),
        len(lost),
        f"{lost[0].path}, {lost[0].reason.removeprefix(f'{LOST}: ')}",
    )
