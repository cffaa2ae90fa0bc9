"""The same small search for the training options of every row of a study, on training people alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from ufe_bench.failure import is_the_methods
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.schema import Trial, best_trial
from ufe_bench.suite import Suite, Tuning
from ufe_bench.validation import Candidate, validate
from ufe_core.errors import ConfigError, cause_of
from ufe_core.recipe import DEFAULT_ANCHORS, resolve_recipe

_NAMES = ("encoder", "calibrator", "detector", "pretraining", "decoder", "source", "budget")


def refuse_searched(suite: Suite, overrides: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse training options that a suite searches for itself.

    Raises:
        ConfigError: names one.
    """
    searched = {name for options in (suite.tuning.trials if suite.tuning is not None else ()) for name in options}
    for name in overrides.get("training", {}):
        if name in searched:
            raise ConfigError(f"Suite '{suite.id}' searches training.{name} itself: leave it out of --set.")


def tuned(
    harness: Harness, request: Request, tuning: Tuning, say: Callable[[str], None] | None = None
) -> tuple[Mapping[str, Any], tuple[Trial, ...]]:  # fmt: skip
    """The training options that a row's search chose, and its trace; nothing of a row that takes no steps.

    Every trial trains with a share of the row's steps on all but the last training people and is measured on those.
    The least geometric mean of the suite's metrics wins: it weighs a halved error alike, whatever its unit; what is
    better the higher it is counts as one over it. A trial in which the method fails has lost; the trace says why.
    What is no fault of the method's, such as a full disk, ends the search, which goes on from there when it is asked
    for again. Where the request is for a fresh training, trials are trained afresh too.

    Raises:
        UfeError: what the user or the machine got wrong.
        Exception: every trial failed; the first one's error.
    """
    names = {name: getattr(request, name) for name in _NAMES}
    overrides = {kind: dict(fields) for kind, fields in (request.overrides or {}).items()}
    recipe = resolve_recipe(harness.catalogue, anchors=request.anchors, overrides=overrides, **names)
    if recipe.encoder.spec.load().learns != "weights":
        return {}, ()
    tell = say or (lambda text: None)
    training = overrides.setdefault("training", {})
    shorter = {name: max(1, round(getattr(recipe.training, name) * tuning.steps)) for name in ("steps", "warmup")}
    kinds = [harness.catalogue.get("metric", name) for name in request.suite.metrics]
    power = {spec.name: -1 if spec.load().higher_is_better else 1 for spec in kinds if not spec.load().temporal}
    metrics = tuple(spec.id for spec in kinds if spec.name in power)
    trials: list[Trial] = []
    failures: list[BaseException] = []
    for number, options in enumerate(tuning.trials, 1):
        given = {**overrides, "training": {**training, **options, **shorter}}
        candidate = Candidate(
            names=names, overrides=given, packed=DEFAULT_ANCHORS, validation=tuning.validation, frames=tuning.frames,
            render_size=request.suite.render_size, metrics=metrics, home=str(harness.store.root),
            device=str(harness.device), split=request.suite.split,
        )  # fmt: skip
        shown = ", ".join(f"{name}={value}" for name, value in options.items())
        tell(f"  trial {number} of {len(tuning.trials)}: {shown}")
        try:
            found = validate(candidate, recipe.anchors, harness.tell, fresh=request.fresh)
        except (Exception, SystemExit) as error:  # whatever a plugin does
            if not is_the_methods(error):
                raise
            failures.append(error)
            trials.append(Trial(training=dict(options), score=None, failure=cause_of(error)))
            tell(f"  failed: {cause_of(error)}")
            continue
        means = {name: fmean(values.values()) for name, values in found.values.items()}
        score = math.exp(fmean(power[name] * math.log(max(mean, 1e-9)) for name, mean in means.items()))
        trials.append(Trial(training=dict(options), score=score, metrics=means, weights=found.weights))
        tell(f"  score {score:.4f}")
    if len(failures) == len(trials):
        raise failures[0]
    return best_trial(trials).training, tuple(trials)
