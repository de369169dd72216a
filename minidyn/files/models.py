"""Models by name: from what a model file says to a loss, a map and its flows, ready to run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, ManifoldError, ModelFileError, of_a_file
from minidyn.common.html import as_html
from minidyn.common.intake import between, finite, numbers, whole
from minidyn.common.locks import cached_property
from minidyn.compare.comparison import Comparison
from minidyn.compare.order import ScalingStudy
from minidyn.compare.scaling import WORK, scaling_study, work_of
from minidyn.compare.side_by_side import compare
from minidyn.compare.sweep import Sweep, sweep
from minidyn.files.modelfile import read_model, read_model_text
from minidyn.files.modelfile.spec import LR, LossSpec, ModelSpec
from minidyn.flows import FLOWS
from minidyn.flows.base import Flow
from minidyn.kernels.random import generator
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss
from minidyn.maps.noise import NOISES, Noise, total
from minidyn.maps.rules import LIBRARY, Rule
from minidyn.minima.manifold import Manifold
from minidyn.minima.stability.search import find_minima
from minidyn.simulate.saves import LOG, spacing

_PATHS = 128  # for which a scaling study has room at least


@dataclass(frozen=True, eq=False)
class Model(ByValue):
    """A named loss with the experiment it is known for.

    loss, map, manifold, flows() : built from the model file (`spec`, whose text is `text`).
    w0 : starting parameters (D,).  steps, paths, save_every, observe, seed : the default experiment.
    """

    _offers = (
        "name title description reference text map loss manifold minima flows w0 steps paths save_every "
        "seed observe run scale sweep with_overrides"
    )
    spec: ModelSpec
    loss: Loss
    map: Map
    steps: int
    paths: int
    save_every: Any
    seed: int

    @property
    def name(self) -> str:
        """The name of its file without `.toml`."""
        return self.spec.name

    @property
    def title(self) -> str:
        """The file's `title`; its name where it has none."""
        return self.spec.title

    @property
    def description(self) -> str:
        """The file's `description`, line by line; empty where it has none."""
        return self.spec.description

    @property
    def reference(self) -> str:
        """The file's `reference`, on one line; empty where it has none."""
        return self.spec.reference

    @property
    def text(self) -> str:
        """The model file."""
        return self.spec.text

    @cached_property
    def manifold(self) -> Manifold:
        """The minima of the loss, with the model file's chart where it has one."""
        chart = self.spec.manifold
        if chart is None:
            return Manifold(self.loss)
        try:
            with of_a_file():
                return Manifold(self.loss, chart=chart.chart, coordinates=chart.coordinates)
        except (InputError, ManifoldError) as error:
            raise ModelFileError(f"{self.spec.path or self.name}: [manifold]: {error}") from error

    @cached_property
    def w0(self) -> Floats:
        """Where the experiment starts; projected on the minima if the file says so."""
        w0 = self.spec.experiment.w0
        return Manifold(self.loss).project(w0) if self.spec.experiment.start == "manifold" else w0

    def minima(self, starts: int = 24, *, spread: float = 1.0, seed: int = 0) -> Floats:
        """Different minima (M, D) near the model's start and `starts - 1` normal points around it.

        The one near the start itself comes first; starts that lead to no minimum are left out.
        """
        starts, spread = whole("starts", starts, 1), finite(spread, "spread")
        draws = generator(seed).standard_normal((starts, self.loss.dim))
        draws[0] = 0.0
        return find_minima(self.loss, self.spec.experiment.w0 + spread * draws)

    @property
    def observe(self) -> dict[str, Any] | None:
        """What is observed: name -> built-in name or expression."""
        return {text: text if e is None else e for text, e in self.spec.experiment.observe.items()} or None

    def flows(self, charted: bool = True) -> list[Flow]:
        """The flows that the model file names; without the chart they run as well and need not check it."""
        out = []
        for text in self.spec.experiment.flows:
            name, _, order = text.partition(" ")
            flow: Any = FLOWS[name]
            given: dict[str, Any] = {"manifold": self.manifold} if charted and flow.charted else {}
            given |= {"order": int(order)} if order else {}
            out.append(flow(self.map, **given))
        return out

    def with_overrides(
        self,
        *,
        lr: float | None = None,
        steps: int | None = None,
        paths: int | None = None,
        save_every: Any = None,
        seed: int | None = None,
    ) -> "Model":
        """The same model with another learning rate or another size of experiment."""
        changes: dict[str, Any] = {"steps": steps, "paths": paths, "seed": seed}
        given: dict[str, Any] = {k: whole(k, v, int(k != "seed")) for k, v in changes.items() if v is not None}
        if save_every is not None:
            given["save_every"] = spacing(save_every)
        elif steps is not None and self.save_every != LOG:
            given["save_every"] = None
        if lr is not None:
            given["map"] = self.map.with_lr(lr)
        return replace(self, **given)

    def run(self, **options: Any) -> Comparison:
        """`compare` the map with its flows as the model file says; keyword arguments override.

        options : those of `compare`: w0, steps, paths, save_every, observe, rng, coupled, rows, first_step, threads,
            executor, progress, checkpoint, missing.

        A flow that does not exist here is left out, and the summary says why, as long as one is there.

        >>> import minidyn as md
        >>> result = md.load_model("valley").run(steps=200, paths=64)
        >>> result.meta["paths"]
        64
        """
        given: dict[str, Any] = {
            "w0": self.w0,
            "steps": self.steps,
            "paths": self.paths,
            "save_every": self.save_every,
            "observe": self.observe,
            "rng": self.seed,
            "missing": "remark",
        } | options
        result = compare(self.map, *self.flows(charted=False), **given)
        result.meta |= {"model": self.name, "model_text": self.text}
        for one in result.runs.values():
            one.meta["model"] = self.name
        return result

    def scale(self, lrs: Sequence[float] | None = None, **options: Any) -> ScalingStudy:
        """A `scaling_study` of the map and its flows from where the model starts; keyword arguments override.

        lrs : at least two learning rates.  options : those of `scaling_study`: time or slow_time, w0, precision, paths,
            pilot, max_paths, work, observe, rng, threads, executor, progress, checkpoint.

        What is not given is as the model file's `[scaling]` says. Else there are four learning rates, the model's own
        the largest, with steps that double from one to the next, and runs are as long as the model's own one: at fixed
        slow time for a quasistatic flow, at fixed time for others; shorter where `work` has no room for many paths.

        >>> import minidyn as md
        >>> study = md.load_model("valley").scale([0.1, 0.05], slow_time=0.1, paths=64)
        >>> [row.steps for row in study.rows if row.quantity == "x"]
        [10, 40]
        """
        said, flows = self.spec.scaling, self.flows(charted=False)
        power, own = (2 if any(flow.slow for flow in flows) else 1), self.map.lr()
        rates = lrs if lrs is not None else said.lrs or [own / 2 ** (n / power) for n in range(4)]
        given: dict[str, Any] = {"w0": self._start_at, "observe": self.observe, "rng": self.seed} | options
        if given.get("time") is None and given.get("slow_time") is None:
            given |= {"time": said.time, "slow_time": said.slow_time}
            if said.time is None and said.slow_time is None:
                work = between(given.get("work", WORK), "work", 0, np.inf)
                given["time" if power == 1 else "slow_time"] = self._span(rates, power, work)
        study = scaling_study(self.map, *flows, lrs=rates, **given)
        start = "" if said.w0 is None or "w0" in options else _placed(self.loss.param_names, said.w0)
        study.meta |= {"model": self.name, "model_text": self.text, "start": start}
        return study

    def sweep(self, over: Any, against: bool = False, **options: Any) -> Sweep:
        """A `sweep` of the map from where the model starts; keyword arguments override.

        over : what varies.  against : hold the model's flows against the map at every setting.
        options : those of `sweep`: w0, steps, paths, observe, reduce, save_every, rng, stop, keep, executor, ...

        >>> import minidyn as md
        >>> md.load_model("valley").sweep({"lr": [0.05, 0.1]}, steps=20, paths=8).shape
        (2,)
        """
        given: dict[str, Any] = {
            "w0": self.w0,
            "steps": self.steps,
            "paths": self.paths,
            "save_every": self.save_every,
            "observe": self.observe,
            "rng": self.seed,
        } | options
        found = sweep(self.map, *(self.flows(charted=False) if against else ()), over=over, **given)
        found.meta |= {"model": self.name, "model_text": self.text}
        return found

    def _span(self, lrs: Any, power: int, work: float) -> float:
        """`lr^power k` of the model's own run; with noise less, where a few paths at all rates are beyond the work."""
        span = self.map.lr() ** power * self.steps
        rates = numbers(lrs, "lrs").ravel()
        if self.map.noise is None or not (rates > 0).all():
            return span
        return min(span, work / float(_PATHS * work_of(self.map) * (rates**-power).sum()))

    def _start_at(self, system: Map) -> Floats:
        """Where a scaling study starts at the learning rate of a map."""
        start, lr = self.spec.scaling.w0, system.lr()
        if start is None:
            return self.w0
        try:
            return np.array([float(value.subs(LR, lr)) for value in start])
        except TypeError:  # no real number
            raise ModelFileError(f"{self.spec.path or self.name}: `scaling.w0` is no number at lr {lr:g}.") from None

    def __repr__(self) -> str:
        return f"Model {self.name}: {self.title}\n  {self.map!r}\n  {self.steps:,} steps, {self.paths:,} paths"

    def _repr_html_(self) -> str:
        head, _, sizes = repr(self).splitlines()
        return as_html([head, self.description, sizes]) + self.map._repr_html_()


def _placed(names: Sequence[str], values: Sequence[Any]) -> str:
    """Where a study starts, for its title."""
    said = [f"{float(value):.6g}" if value.is_number else str(value) for value in values]
    return "from " + ", ".join(f"{name} = {value}" for name, value in zip(names, said, strict=True))


def load_model(name: Any) -> Model:
    """A model by name or by path of a TOML file.

    Raises ModelFileError where the file is missing or broken; names the file, the key and what was expected.

    >>> import minidyn as md
    >>> md.load_model("valley").loss.dim
    2
    """
    return _built(read_model(name))


def model_of_text(text: str, name: str) -> Model:
    """A model by the text of its file, as results carry it; data files named in it are those of the library."""
    return _built(read_model_text(text, name))


def _built(spec: ModelSpec) -> Model:
    try:
        with of_a_file():
            loss = _loss(spec.loss)
            system = Map(loss, rule_of(spec), noise_of(spec))
    except InputError as error:
        raise ModelFileError(f"{spec.path or spec.name}: {error}") from error
    e = spec.experiment
    return Model(spec, loss, system, e.steps, e.paths, e.save_every, e.rng)


def rule_of(spec: ModelSpec) -> Rule:
    """The rule that a model file names."""
    return LIBRARY[spec.rule.name](**spec.rule.hyperparameters)


def noise_of(spec: ModelSpec) -> Noise | None:
    """The sum of the noises that a model file names."""
    return total(NOISES[n.kind].from_options(**n.options) for n in spec.noise)


def _loss(spec: LossSpec) -> Loss:
    params = [p.symbol for p in spec.params]
    constants = {spec.symbols[n]: v for n, v in spec.constants.items()}
    inputs = {spec.symbols[n]: v for n, v in spec.inputs.items()}
    if spec.target is None or spec.criterion is None:
        return Loss(spec.expr, params, constants=constants, data=inputs)
    loss = Loss.regression(
        spec.expr, params, inputs, spec.target, spec.criterion, weights=spec.weights, constants=constants
    )
    if spec.test is None:
        return loss
    return loss.hold_out({spec.symbols[n]: v for n, v in spec.test.inputs.items()}, spec.test.target)
