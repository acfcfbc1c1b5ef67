"""A folder of numbered versions of a model, in the layout of TensorFlow Serving, which serves the largest number.

    pushed/
      1767225600/           a SavedModel; manifest.json in it is its `Record`, model.sig its signature, if it has one
      1767312000/
      latest                text file: the number of the version that was pushed last
      .push-1767312000-x/   a temporary folder of an unfinished push; servers ignore it, as the name is not a number

On a file system a version is copied to a temporary folder, flushed to the disk and renamed. A lock allows one push at a time.
A killed push leaves its temporary folder, which the next push deletes. Object stores can't rename folders and have no locks.
There the files are uploaded to a temporary folder, then moved inside the store to the folder with the number. `saved_model.pb`
is moved last; a version is complete if that file exists.

Servers use the largest number, whatever `latest` says. So a rollback makes a copy: `roll_back` gives an earlier version, with
its record and signature, a new, larger number. All readers then use it. Undoing a rollback is another rollback.

A version is intact if its record can be read and has the digests of its files. The newest intact version is the one that is
served: `fpn serve` and `fpn predict` pass over damaged ones. Without a record, as other programs leave it, a version counts as
intact. Digests are computed when somebody goes by them, from the files as they are then. A reader that is given a public key
also passes over all versions that are not signed by it.
"""

import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from base.errors import UserError
from components.pusher.integrity import digest_of, find_problem
from components.pusher.model_files import copy_files, digest_files, files_of, list_files, user_errors, walk
from components.pusher.places import Version, open_place, place_of
from components.pusher.record import Record


def push(model: str, folder: str, record: Record, keep: int | None, private_key: Path | None = None) -> Version:
    """Makes a SavedModel the newest version. If the newest version has the same files already, nothing is copied.

    A newest version that was damaged is no reason not to push its model again, and does not count among those to keep.

    Args:
      model: folder of the SavedModel, local or a URI.
      folder: folder of the versions, local or a URI such as gs://bucket/models or s3://bucket/models; created if missing.
      record: origin of the model; time, digest and files are filled in here.
      keep: number of newest versions to keep; None for all. The version that `latest` names is never deleted.
      private_key: PEM file; the version is signed with it. None for no signature.

    Raises:
      UserError: the folder can't be written, or the key can't be used. The version that was served before is unchanged.
    """
    with user_errors(folder), open_place(folder) as place:
        files, numbers = list_files(model), place.numbers()
        newest = place.version(numbers[-1], verify=True) if numbers else None
        if newest and not newest.problem and newest.record and newest.record.digest == digest_files(files):
            number = newest.number
            if private_key:
                place.sign(newest.path, private_key)
        else:
            filled = replace(record, time=_now(), digest=digest_files(files), files=files)
            number = place.add(lambda temporary: place.fill(temporary, model, filled, private_key))
        place.mark(number)
        counted = [old for old in place.numbers() if not (newest and newest.problem and old == newest.number)]
        for old in counted[:-keep] if keep else []:
            if old not in (number, place.latest()):
                place.delete(old)
        return place.version(number)


def roll_back(folder: str, number: int) -> Version:
    """Makes a copy of an earlier version the newest version. On a file system the copy has hard links, which need no space.

    Args:
      folder: folder of the versions.
      number: number of the earlier version.

    Raises:
      UserError: there is no such version, it is damaged, its model is served already, or the folder can't be written.
    """
    with user_errors(folder), open_place(folder, make=False) as place:
        found, newest = place.find(number), place.version(place.listed_numbers()[-1], verify=True)
        if found.problem:
            raise UserError(f"{folder}: {number} is damaged ({found.problem}); go back to another version, see fpn push --list")
        if not newest.problem and digest_of(found.path) == digest_of(newest.path):
            raise UserError(
                f"{folder}: {newest.number}, which is served, has the model of {number} already; see fpn push --list"
            )
        made = place.add(lambda temporary: copy_files(found.path, temporary, walk(found.path), place.copy_within))
        place.mark(made)
        return next(version for version in place.versions() if version.number == made)


def sign(folder: str, number: int | None, private_key: Path) -> Version:
    """Signs a version, in place of the signature that it has.

    Args:
      folder: folder of the versions.
      number: number of the version; None for the newest.
      private_key: PEM file.

    Raises:
      UserError: there is no such version, it is damaged, the key can't be used, or the folder can't be written.
    """
    with user_errors(folder), open_place(folder, make=False) as place:
        found = place.find(number)
        if found.problem:
            raise UserError(f"{folder}: {found.number} is damaged ({found.problem}); sign another version, see fpn push --list")
        place.sign(found.path, private_key)
        return found


def list_versions(folder: str) -> list[Version]:
    """Lists all versions, the oldest first, each with what is wrong with it. Reads all their files.

    Raises:
      UserError: the folder does not exist or can't be read.
    """
    with user_errors(folder, "read"):
        if not files_of(folder).isdir(folder):
            raise UserError(f"{folder}: no such folder; give the one that a run has pushed to, such as output/digits/pushed")
        return place_of(folder).versions(verify=True)


def newest_first(folder: str) -> Iterator[Version]:
    """The complete versions, the newest first. Their records are read, but not compared with their files.

    Args:
      folder: folder of the versions, local or a URI. If it does not exist, there are none.
    """
    place = place_of(folder)
    return (place.version(number) for number in reversed(place.folders()))


def version_folders(folder: str) -> dict[int, str]:
    """Paths of the complete versions by number, in ascending order; empty if the folder, local or a URI, does not exist."""
    return place_of(folder).folders()


def served_version(folder: str, public_key: Path | None = None) -> Version | None:
    """The newest version that `find_problem` finds nothing wrong with; None if there is none.

    Args:
      folder: folder of the versions, local or a URI.
      public_key: as for `find_problem`.

    Raises:
      UserError: the folder can't be read.
    """
    with user_errors(folder, "read"):
        return next(
            (version for version in newest_first(folder) if not (version.problem or find_problem(version.path, public_key))),
            None,
        )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
