"""Fetch a published file once: by address, held against its pinned SHA-256, kept in the user's cache.

Weights are fetched over https only; plain http is for this machine alone. A file stands in the cache only under the
digest that it was checked for, and only once it is whole. Where there is no network, the error says which file to put
where by hand; it is then checked in the same way.

In scope: addresses, digests, the cache. Not aware of: what is in the file.
Imports device, errors and progress.
"""

import contextlib
import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from featherweight.device import cache_directory
from featherweight.errors import SettingError, WeightsError
from featherweight.progress import track

MAX_BYTES = 2**31
CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30.0
MAX_REDIRECTS = 5
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A name that is one plain component of a path on every system.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}")


def fetch(url: str, sha256: str, name: str, cache: str | Path | None = None, max_bytes: int = MAX_BYTES) -> Path:
    """The file in the cache; downloaded if it is not there yet.

    Args:
        url: where it is published; https, or http on this machine.
        sha256: its digest in hex, or at least the first 8 digits, as torchvision writes them into file names.
        name: what the file is called in the cache.
        cache: the folder of the cache; by default `weights` in the user's cache directory.
        max_bytes: a file that is larger is not fetched.

    Raises:
        SettingError: an address, a digest or a name that cannot be.
        WeightsError: no network, another content than was pinned, or no place to write; it says which file to put
            where.
    """
    _check_request(url, sha256, name)
    folder = Path(cache) if cache is not None else cache_directory() / "weights"
    path = folder / name
    by_hand = f"put {name} (sha256 {sha256[:16]}…, from {url}) at {path}"
    if path.is_file():
        if _digest(path, by_hand).startswith(sha256.lower()):
            return path
        raise WeightsError(f"{path} has another content than published; remove it, or {by_hand}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror}; make room, or {by_hand}") from error
    try:
        with os.fdopen(handle, "wb") as target:
            found = _download(url, target, name, max_bytes)
            target.flush()
            os.fsync(target.fileno())
        if not found.startswith(sha256.lower()):
            raise WeightsError(f"{url} gave a file with sha256 {found[:16]}…; nothing was kept: {by_hand}")
        Path(beside).replace(path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WeightsError(f"cannot fetch {url}: {_cause(error)}; connect once, or {by_hand}") from error
    finally:
        with contextlib.suppress(OSError):
            Path(beside).unlink()
    return path


def _check_request(url: str, sha256: str, name: str) -> None:
    if not _allowed(url):
        raise SettingError(f"address {url!r}; wanted https://…")
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise SettingError(f"sha256 {sha256!r}; wanted 8 to 64 hex digits")
    if not PLAIN_NAME.fullmatch(name):
        raise SettingError(f"file name {name!r}; wanted letters, digits, '.', '_', '+' and '-'")


def _allowed(url: str) -> bool:
    """https, or http on this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download may start."""

    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _allowed(newurl) or (req.full_url.startswith("https") and not newurl.startswith("https")):
            fp.close()
            raise urllib.error.URLError(f"it redirects to {newurl!r}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: IO[bytes], name: str, max_bytes: int) -> str:
    """Write what the address gives to `target`; its SHA-256 in hex.

    Raises:
        OSError: no network, no answer, or a wrong one.
        ValueError: over `max_bytes`, or cut off.
    """
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(url, headers={"User-Agent": "featherweight"})
    digest = hashlib.sha256()
    with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
        announced = int(answer.headers.get("Content-Length") or 0)
        if announced > max_bytes:
            raise ValueError(f"it has {announced:,} bytes, over the {max_bytes:,} allowed")
        received = 0
        for chunk in track(_chunks(answer), f"fetching {name}", -(-announced // CHUNK_BYTES)):
            received += len(chunk)
            if received > max_bytes:
                raise ValueError(f"it has over the {max_bytes:,} bytes allowed")
            digest.update(chunk)
            target.write(chunk)
        if announced and received != announced:
            raise ValueError(f"it broke off after {received:,} of {announced:,} bytes")
    return digest.hexdigest()


def _chunks(answer: Any) -> Iterator[bytes]:
    while chunk := answer.read(CHUNK_BYTES):
        yield chunk


def _digest(path: Path, by_hand: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}; remove it, or {by_hand}") from error


def _cause(error: Exception) -> str:
    """Why a download failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the server's answer
        reason: object = f"the server answers {error.code} {error.reason}"
    else:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return " ".join(str(reason).split())[:120] or type(error).__name__
