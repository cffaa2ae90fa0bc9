"""The paper's tables, and which of their rows stands beside which of ours.

The numbers are facts of the paper named in `paper_tables.json`. They were measured on other data and on
another avatar, so they are shown beside ours and never ranked with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ufe_bench.schema import Result

METRIC_NAMES: Mapping[str, str] = {
    "photometric_l1": "photometric_l1",
    "mesh_l2": "mesh_l2_mm",
    "lf_mesh_l2": "lf_mesh_l2_mm",
    "mouth_shape": "mouth_shape_l2_mm",
    "gaze": "gaze_deg",
    "latency_ms": "latency_ms",
}
"""Our metric names to the paper's."""

CAVEAT = "paper: other data, other avatar"

# (encoder, calibrator, pre-training, update) of ours to (table, row) of the paper. `ufe/univ` with `ufe/none` has no
# row: the paper never prints its encoder without calibration.
_BESIDE: Mapping[tuple[str, str | None, str | None, str], tuple[str, str]] = {
    ("ufe/univ", "ufe/late_fusion", None, "full"): ("table1", "paper_no_ssl"),
    ("ufe/univ", "ufe/late_fusion", "ufe/mae_novel_view", "linear"): ("table1", "paper_ssl_linear_probe"),
    ("ufe/univ", "ufe/late_fusion", "ufe/mae_novel_view", "full"): ("table1", "paper_ssl_finetune"),
    ("ufe/univ", "ufe/late_fusion", "ufe/mae_original_view", "full"): ("table4", "mae_original_view"),
    ("ufe/univ", "ufe/late_fusion", "ufe/simclr", "full"): ("table4", "simclr"),
    ("ufe/univ", "ufe/late_fusion", "ufe/imagenet", "full"): ("table4", "imagenet"),
    ("ufe/geometry_guided", None, None, "full"): ("table1", "geometry_guided"),
    ("ufe/flnet", None, None, "full"): ("table1", "flnet"),
    ("ufe/fomm", None, None, "full"): ("table1", "first_order_motion"),
    ("ufe/mesh_tracking_gt", None, None, "full"): ("table1", "mesh_tracking_gt"),
    ("ufe/necknet", None, None, "full"): ("table1", "necknet"),
    ("ufe/movement_sdk", None, None, "full"): ("table1", "movement_sdk"),
}


@dataclass(frozen=True)
class PaperRow:
    """One row of a table of the paper; `values` by our metric names, None where the paper prints N/A."""

    table: str
    id: str
    method: str
    reference: str
    input_type: str
    values: Mapping[str, float | None]
    note: str | None = None
    hypothetical: bool = False


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper; `metrics` are our names, in its column order."""

    id: str
    title: str
    metrics: tuple[str, ...]
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class PaperMetric:
    """A column of the paper's tables."""

    label: str
    unit: str | None


@dataclass(frozen=True)
class Paper:
    """The paper's tables and where they were printed."""

    title: str
    venue: str
    doi: str
    metrics: Mapping[str, PaperMetric]
    tables: Mapping[str, PaperTable]


@lru_cache(maxsize=1)
def load_paper() -> Paper:
    """Read the packaged tables."""
    raw = json.loads((Path(__file__).parent / "paper_tables.json").read_text(encoding="utf-8"))
    ours = {theirs: name for name, theirs in METRIC_NAMES.items()}
    tables = {}
    for table_id, table in raw["tables"].items():
        rows = tuple(
            PaperRow(
                table=table_id,
                id=row["id"],
                method=row["method"],
                reference=row.get("reference", "paper"),
                input_type=row["input_type"],
                values={ours[name]: value for name, value in row["values"].items()},
                note=row.get("note"),
                hypothetical=row.get("hypothetical", False),
            )
            for row in table["rows"]
        )
        metrics = tuple(ours[name] for name in table["metrics"])
        tables[table_id] = PaperTable(id=table_id, title=table["title"], metrics=metrics, rows=rows)
    return Paper(
        title=raw["source"]["title"],
        venue=raw["source"]["venue"],
        doi=raw["source"]["doi"],
        metrics={ours[name]: PaperMetric(info["label"], info["unit"]) for name, info in raw["metrics"].items()},
        tables=tables,
    )


def paper_row(
    encoder: str, calibrator: str | None, pretraining: str | None = None, update: str = "full"
) -> PaperRow | None:
    """The row of the paper that stands beside ours, by full ids and by what was updated in training, or None."""
    place = _BESIDE.get((encoder, calibrator, pretraining, update))
    if place is None:
        return None
    table, row_id = place
    return next(row for row in load_paper().tables[table].rows if row.id == row_id)


def row_beside(result: Result) -> PaperRow | None:
    """The row of the paper that stands beside a result, or None."""
    parts = result.key.components
    calibrator = parts.calibrator.id if parts.calibrator is not None else None
    pretraining = parts.pretraining.id if parts.pretraining is not None else None
    update = result.training.config.get("update", "full") if result.training is not None else "full"
    return paper_row(parts.encoder.id, calibrator, pretraining, update)
