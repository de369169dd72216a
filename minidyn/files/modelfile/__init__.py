"""TOML model files: parsed, checked, and never evaluated."""

from minidyn.files.modelfile.expressions import parse_expression
from minidyn.files.modelfile.files import find_model, list_models, read_model, read_model_text
from minidyn.files.modelfile.spec import LossSpec, ModelSpec, NoiseSpec, RuleSpec

__all__ = [
    "LossSpec", "ModelSpec", "NoiseSpec", "RuleSpec", "find_model", "list_models", "parse_expression", "read_model",
    "read_model_text",
]  # fmt: skip
