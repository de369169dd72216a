"""TOML model files: parsed, checked, and never evaluated."""

from minidyn.files.modelfile.expressions import parse_expression
from minidyn.files.modelfile.files import find_model, list_models, read_model, read_model_text

__all__ = ["find_model", "list_models", "parse_expression", "read_model", "read_model_text"]
