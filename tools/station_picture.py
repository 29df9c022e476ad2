"""The picture of the station's page in docs/recognise.md: the demo, live, in a browser.

    python -m tools.station_picture [--steps=3]

Needs the extras `live` and `video`, playwright, and the program chromium.
"""

import argparse
import io
import pathlib
import shutil
import subprocess
import sys

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "station_page.webp"
LIVE = ("--model=demo", "demo", "--realtime", "--serve=0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help="steps that are done in the picture")
    args = parser.parse_args()
    command = [sys.executable, "-m", "stormpsr_jax.recognise", *LIVE]
    station = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        url = next(line.split()[1] for line in station.stderr if line.startswith("page: "))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(url)
            page.wait_for_function(
                "n => +document.querySelector('#progress').getAttribute('aria-valuenow') >= n",
                arg=args.steps,
                timeout=600_000,
            )
            page.wait_for_selector(".next.is-wrong", timeout=600_000)
            shot = page.screenshot()
    finally:
        station.terminate()
        station.wait()
    Image.open(io.BytesIO(shot)).convert("RGB").save(PICTURE, quality=70, method=6)


if __name__ == "__main__":
    main()
