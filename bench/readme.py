"""The tables and pictures of the README, from what ``make demo`` wrote.

    python -m bench.readme demo

replaces what stands between the two comments ``measured`` in README.md, and the pictures in docs/images, made small
enough for a repository. That of the event display needs Chromium or Chrome; without, it stays as it is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTHS = {"event": 1300, "efficiency-pt": 700, "efficiency-eta": 700}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def shrink(source: Path, path: Path, width: int) -> None:
    """Scale a picture to a width in pixels and a palette of 128 colours."""
    with Image.open(source) as picture:
        flat = picture.convert("RGB")
    height = round(flat.height * width / flat.width)
    small = flat.resize((width, height), Image.Resampling.LANCZOS)
    small.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def screenshot(page: Path, path: Path) -> None:
    """A picture of an HTML page, as a browser of 1400 x 860 pixels shows it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"{path}: no Chromium or Chrome found, left as it is")
        return
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory) / "page.png"
        switches = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1400,860"]
        switches += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--virtual-time-budget=8000"]
        switches += [f"--user-data-dir={directory}/profile", f"--screenshot={raw}"]
        subprocess.run([browser, *switches, page.resolve().as_uri()], check=True, capture_output=True, timeout=180)
        shrink(raw, path, 1400)


def fill(page: Path, text: str, mark: str = "measured") -> None:
    """Put a text between the comments ``measured`` and ``/measured`` of a page, or between others."""
    old = page.read_text(encoding="utf-8")
    new, found = re.subn(
        rf"(<!-- {mark} .*?-->\n).*(<!-- /{mark} -->)", lambda m: f"{m[1]}{text}{m[2]}", old, flags=re.S
    )
    if not found:
        raise SystemExit(f"error: {page}: has no comments '{mark}' and '/{mark}'")
    page.write_text(new, encoding="utf-8")
    print(f"{page}: tables")


def main() -> None:
    """Bring README.md and docs/images up to date."""
    demo, root = Path(sys.argv[1]), Path(__file__).parents[1]
    images = root / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name, width in WIDTHS.items():
        shrink(demo / f"{name}.png", images / f"{name}.png", width)
    screenshot(demo / "display.html", images / "display.png")
    fill(root / "README.md", (demo / "tables.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
