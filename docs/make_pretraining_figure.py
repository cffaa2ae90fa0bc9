"""Draws the picture of docs/pretraining.md: `python docs/make_pretraining_figure.py`. It pre-trains first, an hour."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np

VIEWS, SHOWN = 4, (0, 2)  # a front view of an eye and one of the mouth, of those that `ufe pretrain preview` draws
PEOPLE = 6
QUALITY = 90

with tempfile.TemporaryDirectory() as folder:
    file = str(Path(folder) / "preview.png")
    preview = ["pretrain", "preview", "--people", "unseen", "--count", str(PEOPLE), "--out", file]
    subprocess.run(["ufe", *preview], check=True)
    strips = np.array_split(cv2.imread(file), VIEWS, axis=1)
out = Path(__file__).parent / "pretraining.jpg"
cv2.imwrite(str(out), np.hstack([strips[k] for k in SHOWN]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
print(out)
