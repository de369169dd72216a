"""Gradient noise, one file each; `base` says what a new one declares."""

from minidyn.maps.noise.additive import Additive, place
from minidyn.maps.noise.alike import LikeBatches
from minidyn.maps.noise.base import NOISES, REQUIRED, Noise, Option, Part, total
from minidyn.maps.noise.bound import BoundNoise, LinearResponse
from minidyn.maps.noise.draws import NORMAL, SIGNS, Law
from minidyn.maps.noise.gaussian import GaussianNoise
from minidyn.maps.noise.heavy import StableNoise, StudentNoise
from minidyn.maps.noise.labels import LabelNoise, Labels
from minidyn.maps.noise.minibatch import Minibatch
from minidyn.maps.noise.reshuffle import Reshuffle
from minidyn.maps.noise.sampling import Sampling

__all__ = [
    "NOISES", "NORMAL", "REQUIRED", "SIGNS", "Additive", "BoundNoise", "GaussianNoise", "LabelNoise", "Labels", "Law",
    "LikeBatches", "LinearResponse", "Minibatch", "Noise", "Option", "Part", "Reshuffle", "Sampling", "StableNoise",
    "StudentNoise", "place", "total",
]  # fmt: skip
