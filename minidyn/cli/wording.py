"""What the shell has in place of what Python has: its options, and the keys of model files.

Sentences are written where they arise, for all who read them; a name of Python's that stands in one is put there by
`common.errors.said`, which finds here what the shell calls it.
"""

from __future__ import annotations

from collections.abc import Mapping

from minidyn.flows import FLOWS
from minidyn.maps.rules import LIBRARY

_PROJECTION = 'the projection on the minima (start = "manifold" in the model file)'
_CHART = "a [manifold] in the model file with a chart and coordinates"
NAMES: dict[str, str] = (
    {
        "md.simulate": "`minidyn run`, without flows in the model file",
        "md.stability": "`minidyn stability`",
        "scaling_study": "`minidyn scale`",
        "md.GaussianNoise": "Gaussian noise",
        "md.vector": "vector",
        "md.ModifiedFlow(map, order=1)": 'the flow "modified 1"',
        "order=2, or md.GD(lr)": 'the flow "modified 2", or the rule "GD"',
        "manifold.project(w)": _PROJECTION,
        "manifold.project(w0)": _PROJECTION,
        "Manifold(loss).project(w)": _PROJECTION,
        "Manifold(loss, chart={...}, coordinates=[...])": _CHART,
        "Manifold(loss, chart={parameter: expression, ...}, coordinates=[...])": _CHART,
        "chart={parameter: expression, ...} and coordinates=[symbols]": "a chart and coordinates",
        ", or resolve smaller curvatures with Manifold(loss, gap=...)": "",
        ", or accumulators='full'": "",
        ", or a smaller slow=": "",
        "try a larger gap=": "start elsewhere",
        "give their number in slow=, or compare": "compare",
        "give their number in slow=, 0 at an isolated minimum": "start elsewhere",
        "'log'": "log",
        "constants=": "constants",
        "data=": "it [loss.inputs]",
        "observe={name: expression or function}": "observe = {name = expression} in the model file",
        "keep less (keep='moments', checkpoint=...)": "keep them on disk (--checkpoint)",
        "first_step, steps": "--steps",
        "rng=0": "--seed 0",
    }
    | {f"md.{flow.__name__}": f'the flow "{key}"' for key, flow in FLOWS.items()}
    | {f"md.{name}": f'the rule "{name}"' for name in LIBRARY}
)
_ARGUMENTS = {
    "seed": "rng",
    "batch": "batches",
    "lr": "lrs",
    "workers": "executor",
}  # of the library, where an option has another name


def names_for(options: Mapping[str, str]) -> dict[str, str]:
    """What a command whose parameters have these options, such as `save_every` -> `--save-every`, calls everything.

    >>> names_for({"save_every": "--save-every"})["save_every"], names_for({})["md.ModifiedFlow"]
    ('--save-every', 'the flow "modified"')
    """
    known = {_ARGUMENTS.get(name, name): option for name, option in options.items()} | dict(options)
    return NAMES | known | {f"{name}=": option for name, option in known.items()}
