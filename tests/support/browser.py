"""zarrita in a headless browser: a page that reads arrays from a server and says what it found."""

from __future__ import annotations

import contextlib
import html
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import peers

_ZARRITA = peers.HOME / "zarrita"

_PAGE = """<!doctype html><meta charset="utf-8"><title>zarrita reads zarrstore serve</title>
<body style="font-family:sans-serif;margin:1.5em"><h1 style="font-size:130%">zarrita reads zarrstore serve</h1>
<div id="shown"></div><pre id="found" style="display:none"></pre><script src="zarrita.js"></script><script>
const plain = (key, value) =>
  typeof value === "bigint" ? Number(value) : ArrayBuffer.isView(value) ? [...value] : value;
function draw(name, chunk) {
  const [height, width] = chunk.shape.slice(-2), canvas = document.createElement("canvas");
  canvas.width = width; canvas.height = height;
  canvas.style = "width:360px;image-rendering:pixelated;border:1px solid #888;display:block;margin-bottom:1em";
  const pixels = canvas.getContext("2d").createImageData(width, height);
  const values = [...chunk.data].slice(0, width * height);
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  values.forEach((v, i) => pixels.data.set([255 * (v - low) / span, 120, 255 - 255 * (v - low) / span, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  shown.append(`${name}: ${chunk.shape.join(" × ")}`, canvas);
}
(async () => {
  const results = {};
  for (const [name, {url, path, version}] of Object.entries(WANTED)) {
    try {
      const group = zarr.root(new zarr.FetchStore(url));
      const open = version === 3 ? zarr.open.v3 : zarr.open.v2;
      const array = await open(group.resolve(path), {kind: "array"});
      const chunk = await zarr.get(array);
      results[name] = {shape: chunk.shape, data: chunk.data};
      if (chunk.shape.length >= 2) draw(name, chunk);
    } catch (error) { results[name] = {error: String(error)}; }
  }
  found.textContent = JSON.stringify(results, plain);
})();
</script>"""


def require() -> None:
    """Skip the test unless a browser and zarrita are here."""
    peers.require("browser", "zarrita")


def read_by_zarrita(wanted: Mapping[str, Mapping[str, Any]], folder: Path, picture: Path | None = None) -> Any:
    """Return what zarrita finds in a page: of each name its shape and items, or an error.

    Parameters
    ----------
    wanted : mapping of name to mapping
        ``url`` of the root, ``path`` of the array, ``version`` (2 or 3).
    folder : Path
        Where the page and the browser's profile are put.
    picture : Path, optional
        Where a picture of the page is put.
    """
    (folder / "entry.js").write_text('import * as zarr from "zarrita"; globalThis.zarr = zarr;')
    bundle = [str(_ZARRITA / "node_modules/.bin/esbuild"), str(folder / "entry.js"), "--bundle", "--log-level=error"]
    env = {"NODE_PATH": str(_ZARRITA / "node_modules"), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    subprocess.run([*bundle, f"--outfile={folder / 'zarrita.js'}"], check=True, timeout=60, env=env)
    (folder / "index.html").write_text(_PAGE.replace("WANTED", json.dumps(wanted)), encoding="utf-8")
    with _pages(folder) as url:
        page = _chromium(folder, "--dump-dom", f"{url}/index.html")
        if picture is not None:
            _chromium(folder, f"--screenshot={picture}", "--window-size=480,720", f"{url}/index.html")
    found = re.search(r'<pre id="found"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found is not None, page
    assert found[1], f"the page said nothing: {page[-2000:]}"
    return json.loads(html.unescape(found[1]))


def screenshot(url: str, picture: Path, folder: Path, size: str = "900,700") -> None:
    """Put a picture of a page into a file."""
    _chromium(folder, f"--screenshot={picture}", f"--window-size={size}", url)


def _chromium(folder: Path, *options: str) -> str:
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def _pages(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
