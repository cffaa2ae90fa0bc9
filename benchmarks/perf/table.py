"""Every speed bench, one table: each figure a ratio within one run, beside its peer or limit.

    python benchmarks/perf/table.py [--only NAME ...] [--out FOLDER]
    python benchmarks/perf/table.py --show FILE

Runs the benches of this folder one after another, each in a process of its own, prints the table, and writes it with
every bench's own report to `FOLDER/<date>.json` (`benchmarks/perf/results`). Nothing else should run meanwhile. A peer
that is not there costs its figure and no other: Embree (`pip install ".[perf]"`), a C++ compiler. `--show` prints such
a file as Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A ratio of a bench's report, and how small or how large it should be."""

    name: str
    of: Callable[[Mapping[str, Any]], float]
    at_most: float | None = None
    at_least: float | None = None

    def row(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """What the table says of it; no value where its peer was not there."""
        target, sign = (self.at_least, ">=") if self.at_most is None else (self.at_most, "<=")
        aim = None if target is None else f"{sign} {target:g}"
        try:
            value = self.of(report)
        except KeyError:
            return {"figure": self.name, "value": None, "target": aim, "met": None}
        met = target is None or (value <= target if self.at_most is not None else value >= target)
        return {"figure": self.name, "value": value, "target": aim, "met": met}


def at(*path: str) -> Callable[[Mapping[str, Any]], float]:
    """A number of a report by its place.

    Raises:
        KeyError: the report has none there.
    """

    def found(report: Mapping[str, Any]) -> float:
        value: Any = report
        for name in path:
            value = value[name]
        return float(value)

    return found


def loader_best(report: Mapping[str, Any]) -> float:
    """The loader as it is used, with threads."""
    return max(ratio for name, ratio in report["paired_ratio_to_memory"].items() if "thread" in name)


#: Bench to the arguments it is run with and its figures; T numbers are those of the targets that were set.
BENCHES: Mapping[str, tuple[tuple[str, ...], tuple[Figure, ...]]] = {
    "render": ((), (
        Figure("T1 embreex hits alone / our shaded frame, one thread", at("ratios", "T1 embreex hits / finished frame"),
               at_least=2.5),
        Figure("T2 warp BVH rays / our rasteriser", at("ratios", "T2 warp BVH hits / bare rasteriser"), at_least=6),
        Figure("T3 R_mesh forward and backward / forward", at("ratios", "T3 R_mesh forward and backward / forward"),
               at_most=2.5),
        Figure("T4 one thread / two", at("ratios", "T4 one thread / two"), at_least=1.6),
    )),
    "raymarch": ((), (
        Figure("T5 sparse torch / our marcher, forward", at("ratios", "torch / ours, forward"), at_least=6),
        Figure("T6 the same, forward and backward", at("ratios", "torch / ours, forward and backward"), at_least=5),
        Figure("T7 our march / a C++ march of the same hits", at("ratios", "our march / C++ march"), at_most=2),
        Figure("T8 4096 boxes / 256 boxes", at("ratios", "4096 / 256 boxes"), at_most=1.5),
    )),
    "inference": (("--size", "192"), (
        Figure("T9 bare backbones, eager / our encoder live", lambda r: 1 / at("to_bare_backbones", "live, onnx")(r),
               at_least=4),
        Figure("T10 our encoder / a large matrix product, operations a second", at("of_peak", "live, onnx"),
               at_least=0.55),
        Figure("T11 p99 / median of our encoder live", at("p99_to_median", "live, onnx"), at_most=1.5),
        Figure("whole encoder, eager / bare backbones, eager", at("to_bare_backbones", "as trained"), at_most=1.15),
        Figure("six anchors / none, live", at("anchors_6_to_0", "live, onnx"), at_most=1.01),
    )),
    "loader": ((), (Figure("T12 packed captures / a gather from memory, frames a second", loader_best, at_least=0.8),)),
    "training_step": ((), (Figure("training step / bare networks both ways", at("ratio"), at_most=1.5),)),
    "pretraining_step": ((), (Figure("pre-training step / bare networks both ways", at("ratio"), at_most=1.4),)),
    "harness": ((), (Figure("measuring / encoding and drawing alone", at("ratio"), at_most=1.2),)),
}  # fmt: skip


def markdown(found: Mapping[str, Any]) -> str:
    """The table of a dated file."""
    lines = ["| | ratio | target | |", "| --- | ---: | --- | --- |"]
    for row in found["figures"]:
        value = "-" if row["value"] is None else f"{row['value']:.2f}"
        met = {None: "not measured", True: "met", False: "**missed**"}[row["met"]] if row["target"] else ""
        lines.append(f"| {row['figure']} | {value} | {row['target'] or ''} | {met} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), default=list(BENCHES), metavar="NAME",
                        help=f"some of {', '.join(BENCHES)}")  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the dated file")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print a dated file as Markdown, and run nothing")
    arguments = parser.parse_args()
    if arguments.show is not None:
        print(markdown(json.loads(arguments.show.read_text())))
        return
    reports, rows, failed = {}, [], []
    for name in arguments.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        words, figures = BENCHES[name]
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *words, "--json"], capture_output=True, text=True
        )  # fmt: skip
        if done.returncode:
            failed.append((name, (done.stderr.strip().splitlines() or ["no word"])[-1]))
            continue
        reports[name] = json.loads(done.stdout)
        rows += [{"bench": name, **figure.row(reports[name])} for figure in figures]
    width = max((len(row["figure"]) for row in rows), default=0)
    for row in rows:
        value = f"{'-':>7}" if row["value"] is None else f"{row['value']:7.2f}"
        met = {None: "not measured", True: "met", False: "NOT met"}[row["met"]] if row["target"] else ""
        print(f"{row['bench']:17} {row['figure']:{width}} {value}   {row['target'] or '':8} {met}")
    for name, reason in failed:
        print(f"{name:17} failed: {reason}")
    if rows:
        from ufe_bench.provenance import environment_record

        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        machine = {**environment_record().model_dump(), "cpus": os.cpu_count(), "load_at_the_end": load}
        arguments.out.mkdir(parents=True, exist_ok=True)
        part = "" if set(arguments.only) == set(BENCHES) else f".{'-'.join(sorted(arguments.only))}"
        path = arguments.out / f"{datetime.date.today().isoformat()}{part}.json"
        found = {"machine": machine, "figures": rows, "failed": dict(failed), "reports": reports}
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(path)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
