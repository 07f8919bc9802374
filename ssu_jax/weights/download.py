"""One file from a URL, held against the sha256 that its publisher names."""

import logging
import pathlib
import sys
import urllib.parse
import urllib.request

import tqdm

from ssu_jax import files
from ssu_jax.types import UserError

_PIECE_BYTES = 1 << 20
_NUM_RETRIES = 5
_TIMEOUT_SECONDS = 30.0


def fetch(url: str, path: pathlib.Path, sha256: str, num_bytes: int | None = None) -> None:
    """Writes the file of a URL to `path`; a connection that breaks is taken up where it broke.

    num_bytes: its size, where that is known: not one more is taken. Raises UserError: not reachable, another size or
    digest; then there is no file at `path`.
    """
    import urllib3

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # every try again would be a line; the last one is the error
    with files.atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                _write(urllib3, url, file, num_bytes)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            reason = str(getattr(error, "reason", None) or error)
            raise UserError(f"{url} cannot be downloaded: {' '.join(reason.split())[:300]}") from error
        check_digest(temporary, sha256, url)


def check_digest(path: pathlib.Path, sha256: str, source: str) -> None:
    """Raises UserError, which calls the file `source`, if it has another sha256."""
    found = files.sha256_of(path)
    if found != sha256.lower():
        raise UserError(f"{source} is not the file wanted: its sha256 is {found}, wanted {sha256.lower()}")


def without_secrets(url: str) -> str:
    """The URL without user, password and query, which may hold a token."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _write(urllib3, url: str, file, num_bytes: int | None) -> None:
    retries = urllib3.Retry(_NUM_RETRIES, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504))
    with (
        _pool(urllib3, url) as pool,
        tqdm.tqdm(unit="B", unit_scale=True, file=sys.stderr, dynamic_ncols=True, disable=None) as bar,
    ):
        while True:
            start = file.tell()
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            response = pool.request("GET", url, headers=headers, retries=retries, preload_content=False)
            if response.status not in (200, 206):
                raise UserError(f"{url} cannot be downloaded: the server answers {response.status} {response.reason}")
            if start and response.status == 200:  # it does not do parts: from the start
                file.seek(0)
                file.truncate()
                bar.reset()
            bar.total = file.tell() + int(response.headers.get("Content-Length", 0)) or None
            try:
                for piece in response.stream(_PIECE_BYTES):
                    bar.update(file.write(piece))
                    if num_bytes is not None and file.tell() > num_bytes:
                        raise UserError(f"{url} is not the file wanted: it is larger than {num_bytes} bytes")
                return
            except urllib3.exceptions.HTTPError as error:
                retries = retries.increment("GET", url, error=error)
                retries.sleep()
            finally:
                response.close()


def _pool(urllib3, url: str):
    """Connections, through the proxy that the usual variables name (https_proxy, no_proxy): urllib3 reads none."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager(timeout=_TIMEOUT_SECONDS)
    return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", timeout=_TIMEOUT_SECONDS)
