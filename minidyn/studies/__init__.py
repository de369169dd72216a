"""Studies: what was published, and what minidyn adds, stated as claims, measured, and judged in notebooks.

A notebook opens `md.study(name)`, measures, states its claims, and closes the study, which writes its report, figures
and data. `minidyn reproduce` runs the notebooks that are installed with the package.
"""

from minidyn.studies.claims import Claim
from minidyn.studies.study import Study, study

__all__ = ["Claim", "Study", "study"]
