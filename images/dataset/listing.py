"""Lists files on a local disk or one of Beam's file systems, and marks those that must not be opened."""

import heapq
import os
import posixpath
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Final

from apache_beam.io.filesystems import FileSystems

from base.errors import UserError
from base.inputs import open_regular
from images.dataset import archives
from images.dataset.litter import holds_outputs, litter_kind
from images.dataset.row import LEADS_OUT
from images.reason import Reason
from storage.stores import file_system, open_to_read

_BLOB: Final = re.compile("blobs/[0-9a-f]{40}([0-9a-f]{24})?")  # a file in Hugging Face's cache, named by its digest


@dataclass(frozen=True, slots=True)
class File:
    """A file in a listing.

    Attributes:
      size: bytes.
      modified: seconds since 1970.
      reason: why the file must not be opened, a `Reason` if there is a detail; "" if it may be opened.
    """

    size: int = 0
    modified: float = 0.0
    reason: str = ""


@dataclass
class Listing:
    """The files of a folder.

    Attributes:
      files: by path relative to the folder, in alphabetical order.
      skipped: what is no part of a data set, such as "Thumbs.db", "hidden files" or "empty folders": how often it was found.
      archived: whether files are in archives.
    """

    files: dict[str, File]
    skipped: Counter[str]
    archived: bool


def is_remote(path: str) -> bool:
    """Whether the path is a URI of one of Beam's file systems, such as gs://, s3:// or hdfs://, and not a local path."""
    return FileSystems.get_scheme(path) is not None


def join(folder: str, path: str) -> str:
    """Joins a folder and a path; a URI or an absolute path is returned unchanged."""
    if is_remote(path) or os.path.isabs(path):
        return path
    if not path:
        return folder
    return f"{folder.rstrip('/')}/{path}"


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading, without decompressing it; one on a local disk must be a regular file, or lie in an archive.

    Raises:
      OSError: a local file can't be opened, or is a pipe, a device or a folder. Other file systems have errors of their own.
      UserError: the archive can't be read.
    """
    if is_remote(path):
        return open_to_read(path)
    place = archives.split_path(path)
    return archives.open_member(*place) if place else open_regular(path)


def list_files(folder: str, allow_links: bool = False) -> dict[str, File]:
    """The files that `list_folder` lists."""
    return list_folder(folder, allow_links).files


def list_folder(folder: str, allow_links: bool = False) -> Listing:
    """Lists all files below a folder, or in a zip or tar archive, without what programs leave there: see `litter`.

    Archives in a folder are listed as folders if no other folder beside them holds files.

    On a local disk, symbolic links to places inside the folder are followed, and others with `allow_links`. A folder that can
    be reached in several ways is read once. Links that are not followed, folders that can't be read, and files that are not
    regular files are listed with a reason.

    Args:
      folder: a local path, or a URI of one of Beam's file systems (gs://, s3://, hdfs://).
      allow_links: whether to follow symbolic links that lead out of the folder.

    Raises:
      UserError: there is no such folder, it is empty, or it can't be listed.
    """
    skipped: Counter[str] = Counter()
    archived = False
    try:
        if is_remote(folder):
            files = _list_remote(folder, skipped)
        elif folder.lower().endswith(archives.SUFFIXES) and os.path.isfile(folder):
            files, archived = _list_archive(folder, "", skipped), True
        else:
            files = _in_snapshot(folder, _list_local(folder, allow_links, skipped), skipped)
            found = [path for path, file in files.items() if path.lower().endswith(archives.SUFFIXES) and not file.reason]
            if not any("/" in path for path in files.keys() - set(found)):
                archives.check_number(folder, found)
                for path in found:
                    del files[path]
                    files |= _list_archive(join(folder, path), f"{path}/", skipped)
                    archived = True
    except UserError:
        raise
    except Exception as error:  # each file system raises exceptions of its own
        raise UserError(f"{folder}: can't be listed ({error}); give an existing folder of images as data.path") from error
    if not files:
        state = "holds no files" if is_remote(folder) or os.path.exists(folder) else "no such folder"
        raise UserError(f"{folder}: {state}; give a folder of class folders, or one with a manifest, as data.path or --data")
    return Listing({path: files[path] for path in sorted(files)}, skipped, archived)


def look_up(folder: str, paths: Iterable[str], allow_links: bool) -> dict[str, File]:
    """Looks up files that a listing of the folder does not contain: hidden, behind links, or outside the folder.

    Args:
      folder: the data folder.
      paths: URIs, absolute paths, or normalised paths relative to the folder.
      allow_links: whether a path may lead out of the folder.

    Returns:
      The files that exist, by path. A path that leads out of the folder without permission is always included, with that as
      its reason.

    Raises:
      UserError: the folder of a URI can't be listed.
    """
    found: dict[str, File] = {}
    remote: dict[str, str] = {}  # URI -> path
    root = "" if is_remote(folder) else os.path.realpath(folder)
    for path in paths:
        if is_remote(path):
            remote[path] = path
        elif not root and not os.path.isabs(path):
            if not path.startswith("../"):
                continue
            if not allow_links:
                found[path] = File(reason=LEADS_OUT)
                continue
            scheme, place = join(folder, path).split("://", 1)
            remote[f"{scheme}://{posixpath.normpath(place)}"] = path
        else:
            real = os.path.realpath(join(folder, path))
            if not allow_links and not (root and _is_inside(real, root)):
                found[path] = File(reason=LEADS_OUT)
            elif os.path.exists(real):
                found[path] = _describe(os.stat(real))
    for uri, item in _look_up_remote(remote).items():
        found[remote[uri]] = item
    return found


def _look_up_remote(uris: Iterable[str]) -> dict[str, File]:
    places: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        places[uri.rpartition("/")[0]].append(uri)
    found = {}
    for place, wanted in places.items():
        try:
            listed = _list_remote(place, Counter())
        except Exception as error:
            raise UserError(f"{wanted[0]}: can't be looked up ({error}); correct the manifest or the access to it") from error
        for uri in wanted:
            if item := listed.get(uri.rpartition("/")[2]):
                found[uri] = item
    return found


def _list_remote(folder: str, skipped: Counter[str]) -> dict[str, File]:
    root = folder.rstrip("/") + "/"
    files = {}
    for item in file_system(root)._list(root):  # match() would treat [ and * in names as patterns
        path = item.path.removeprefix(root)
        if not path or path.endswith("/"):  # stands for an empty folder
            continue
        if kind := next(filter(None, map(litter_kind, path.split("/"))), ""):
            skipped[kind] += 1
        else:
            files[path] = File(item.size_in_bytes, item.last_updated_in_seconds)
    return files


def _list_archive(archive: str, prefix: str, skipped: Counter[str]) -> dict[str, File]:
    modified = os.stat(archive).st_mtime
    files = {}
    for path, size in archives.members(archive).items():
        if kind := next(filter(None, map(litter_kind, path.split("/"))), ""):
            skipped[kind] += 1
        else:
            leads_out = is_remote(path) or os.path.isabs(path) or ".." in path.split("/")
            files[f"{prefix}{path}"] = File(size, modified, "a name in an archive that leads out of it" if leads_out else "")
    return _escape_names(files)


def _list_local(folder: str, allow_links: bool, skipped: Counter[str]) -> dict[str, File]:
    root = os.path.realpath(folder)
    files: dict[str, File] = {}
    if not os.path.exists(root):
        return files
    folders = [(root, "")]  # real path of a folder, and the prefix of the listed paths of its files
    links: list[tuple[str, str]] = []
    seen: set[str] = set()
    while folders or links:
        # Links come last, so that a file inside the folder is listed under its own path.
        if folders:
            place, prefix = folders.pop()
        else:
            prefix, place = heapq.heappop(links)
        if place in seen:
            continue
        seen.add(place)
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            if place == root:
                raise
            files[prefix.rstrip("/")] = File(reason=Reason("unreadable folder", error.strerror or type(error).__name__))
            continue
        if place != root and holds_outputs({entry.name for entry in entries}):
            skipped[f"output folder {prefix.rstrip('/')}"] += 1
            continue
        wanted = _without_litter(entries, skipped)
        if place != root and not wanted:
            skipped["empty folders"] += 1
        for entry in wanted:
            path = prefix + entry.name
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if not allow_links and not _is_inside(real, root):
                    files[path] = File(reason=LEADS_OUT)
                elif os.path.isdir(real):
                    heapq.heappush(links, (path + "/", real))
                elif os.path.exists(real):
                    files[path] = _describe(os.stat(real))
                else:
                    files[path] = File(reason="a link that leads nowhere")
            elif entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, path + "/"))
            else:
                try:
                    files[path] = _describe(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue  # deleted since the folder was read
    return _escape_names(files)


def _in_snapshot(folder: str, files: dict[str, File], skipped: Counter[str]) -> dict[str, File]:
    """The files of the only snapshot, if the folder is a data set in Hugging Face's cache, where they are links to blobs."""
    blobs = [path for path in files if path.startswith("blobs/")]
    snapshots = sorted({path.split("/")[1] for path in files if path.startswith("snapshots/")})
    if not blobs or not snapshots or not all(_BLOB.fullmatch(path) for path in blobs):
        return files
    if len(snapshots) > 1:
        raise UserError(
            f"{folder}: Hugging Face's cache of {len(snapshots)} snapshots, such as {snapshots[0]} and {snapshots[1]}; "
            f"give {folder.rstrip('/')}/snapshots/{snapshots[0]} or another as data.path, with data.allow_links"
        )
    skipped["blobs of Hugging Face's cache"] += len(blobs)
    return {path: file for path, file in files.items() if path.startswith("snapshots/")}


def _without_litter(entries: list[os.DirEntry[str]], skipped: Counter[str]) -> list[os.DirEntry[str]]:
    wanted = []
    for entry in entries:
        if kind := litter_kind(entry.name):
            skipped[kind] += 1
        else:
            wanted.append(entry)
    return wanted


def _describe(found: os.stat_result) -> File:
    if not stat.S_ISREG(found.st_mode):
        return File(reason="not a regular file")
    return File(found.st_size, found.st_mtime)


def _is_inside(real: str, root: str) -> bool:
    return real == root or real.startswith(root.rstrip("/") + "/")


def _escape_names(files: dict[str, File]) -> dict[str, File]:
    """Replaces names that are not valid UTF-8 by names with escapes, because they can't be written to a text file."""
    named = {}
    for path, item in files.items():
        if path.isascii():
            named[path] = item
            continue
        try:
            path.encode()
        except UnicodeEncodeError:
            path = os.fsencode(path).decode("utf-8", "backslashreplace")
            item = File(item.size, item.modified, item.reason or "the name is not UTF-8")
        named[path] = item
    return named
