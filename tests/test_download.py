"""Files are fetched once, held against their digest, and never stand half in the cache. No network: a local server."""

import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from featherweight.errors import SettingError, WeightsError
from featherweight.models import download
from featherweight.models.download import fetch

CONTENT = bytes(range(256)) * 10_000  # 2.56 MB: three chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/good, /long and /short lie about their length, /to?URL redirects there, all else is absent."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        place, _, target = self.path.partition("?")
        if place == "/to":
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        if place not in ("/good", "/short", "/silent"):
            self.send_error(404)
            return
        self.send_response(200)
        if place != "/silent":
            self.send_header("Content-Length", str(len(CONTENT) + (place == "/short")))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("sha256", [DIGEST, DIGEST[:8], DIGEST[:10].upper()])
def test_a_file_is_fetched_once(server: str, tmp_path: Path, sha256: str) -> None:
    Handler.asked.clear()
    for _ in range(2):
        path = fetch(f"{server}/good", sha256, "net-1.0.pth", tmp_path / "cache")
        assert path == tmp_path / "cache" / "net-1.0.pth"
        assert path.read_bytes() == CONTENT
    assert Handler.asked == ["/good"]
    assert [file.name for file in path.parent.iterdir()] == ["net-1.0.pth"]  # nothing is left beside it


def test_a_length_need_not_be_announced(server: str, tmp_path: Path) -> None:
    assert fetch(f"{server}/silent", DIGEST, "net.pth", tmp_path).read_bytes() == CONTENT


def test_the_cache_is_the_users(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch(f"{server}/good", DIGEST, "net.pth") == tmp_path / "featherweight" / "weights" / "net.pth"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/absent", "404"),
        ("/short", r"broke off|IncompleteRead"),
        ("/to?file:///etc/passwd", "not allowed"),
        ("/to?ftp://127.0.0.1/x", "which is not https"),
        ("/to?http://example.invalid/x", "which is not https"),
        ("/to?/to?/to?/to?/to?/to?/to?/good", "redirect"),
    ],
)
def test_a_failed_download_says_which_file_to_put_where(server: str, tmp_path: Path, place: str, said: str) -> None:
    with pytest.raises(WeightsError, match=said) as caught:
        fetch(server + place, DIGEST, "net.pth", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("put net.pth", DIGEST[:16], server + place, str(tmp_path / "net.pth")):
        assert part in message
    assert not list(tmp_path.iterdir())


def test_redirects_within_the_rules_are_followed(server: str, tmp_path: Path) -> None:
    assert fetch(f"{server}/to?/good", DIGEST, "net.pth", tmp_path).read_bytes() == CONTENT


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot fetch http://127\.0\.0\.1:9/x: .*; connect once, or put net\.pth"):
        fetch("http://127.0.0.1:9/x", DIGEST, "net.pth", tmp_path)


def test_another_content_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"gave a file with sha256 {DIGEST[:16]}…; nothing was kept"):
        fetch(f"{server}/good", "0" * 64, "net.pth", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_put_there_by_hand_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert fetch("https://example.invalid/x", DIGEST, "net.pth", tmp_path) == tmp_path / "net.pth"
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="another content than published; remove it, or put"):
        fetch("https://example.invalid/x", DIGEST, "net.pth", tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match="cannot be read: Permission denied"):
        fetch("https://example.invalid/x", DIGEST, "net.pth", tmp_path)


@pytest.mark.parametrize(
    ("place", "said"), [("/good", "2,560,000 bytes, over the 1,000"), ("/silent", "over the 1,000")]
)
def test_a_file_over_the_cap_is_not_fetched(server: str, tmp_path: Path, place: str, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        fetch(server + place, DIGEST, "net.pth", tmp_path, max_bytes=1000)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"cannot write to .*; make room, or put net\.pth"):
        fetch(f"{server}/good", DIGEST, "net.pth", tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("url", "sha256", "name", "said"),
    [
        ("http://example.org/x", DIGEST, "a", "wanted https"),
        ("file:///etc/passwd", DIGEST, "a", "wanted https"),
        ("https:///x", DIGEST, "a", "wanted https"),
        ("https://example.org/x", "abc", "a", "8 to 64 hex digits"),
        ("https://example.org/x", "z" * 64, "a", "8 to 64 hex digits"),
        ("https://example.org/x", DIGEST, "../a", "file name '../a'"),
        ("https://example.org/x", DIGEST, "", "file name ''"),
        ("https://example.org/x", DIGEST, ".hidden", "file name '.hidden'"),
    ],
)
def test_requests_that_cannot_be(url: str, sha256: str, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=said):
        fetch(url, sha256, name, tmp_path)


def test_https_never_falls_back_to_http() -> None:
    handler = download._Redirects()
    request = download.urllib.request.Request("https://example.org/x")
    with pytest.raises(OSError, match="which is not https"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "http://127.0.0.1/x")
    onwards = handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "https://example.com/y")
    assert onwards is not None
    assert onwards.full_url == "https://example.com/y"
