"""TOML model files: parsed, checked, and never evaluated."""

from minidyn.files.modelfile.expressions import parse_expression
from minidyn.files.modelfile.files import find_model, list_models, read_model, read_model_text
from minidyn.files.modelfile.spec import (
    ChartSpec,
    ExperimentSpec,
    LossSpec,
    ModelSpec,
    NoiseSpec,
    ParameterSpec,
    RuleSpec,
)

__all__ = [
    "ChartSpec",
    "ExperimentSpec",
    "LossSpec",
    "ModelSpec",
    "NoiseSpec",
    "ParameterSpec",
    "RuleSpec",
    "find_model",
    "list_models",
    "parse_expression",
    "read_model",
    "read_model_text",
]
