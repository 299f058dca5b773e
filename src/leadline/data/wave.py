"""One .wav file to the samples of one channel.

Symbols:
    n samples, c channels.
"""

import struct
import warnings
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import torch
from scipy.io import wavfile
from torch import Tensor

from leadline.core import Audio
from leadline.data.meaning import Array

__all__ = ["BROKEN", "Header", "decoded", "header"]

BROKEN = (OSError, ValueError, EOFError, TypeError, struct.error, ZeroDivisionError, MemoryError, KeyError)
_CUT_OFF = "Reached EOF prematurely"


@dataclass(frozen=True)
class Header:
    """What a file says of itself: samples a second, samples of a channel, and how they are stored."""

    rate: int
    length: int
    encoding: str

    def length_at(self, rate: int) -> int:
        """Return the number of samples after resampling."""
        return -(-self.length * rate // self.rate)


def header(path: Path) -> Header:
    """Return what a file says of itself, its samples read only where they cannot be mapped.

    Raises:
        OSError: If it is no .wav file, is cut off, or holds no sound.
    """
    rate, values = _read(path)
    small = values.dtype.kind == "u" or values.dtype == np.int16
    return Header(rate, len(values), "int16" if small else "float32")


def decoded(path: Path, domain: Audio) -> Tensor:
    """Return the samples of a file as `domain` holds them: channels averaged, resampled where need be.

    Raises:
        OSError: If it is no .wav file, is cut off, or holds no sound.
        ValueError: If a number is not finite.
    """
    rate, values = _read(path)
    as_held = values.ndim == 1 and rate == domain.rate
    if as_held and values.dtype == np.int16 and domain.encoding == "int16":
        return torch.from_numpy(np.array(values))
    waves = _unit(values)
    if not np.isfinite(waves).all():
        raise ValueError(f"sample {int((~np.isfinite(waves)).argmax())} is not a finite number")
    mono = waves if waves.ndim == 1 else waves.mean(1)  # (n, c) -> (n,)
    if rate != domain.rate:
        from scipy.signal import resample_poly  # more than a second to import

        common = gcd(rate, domain.rate)
        mono = resample_poly(mono, domain.rate // common, rate // common)
    return domain.encoded(torch.from_numpy(np.ascontiguousarray(mono)))


def _read(path: Path) -> tuple[int, Array]:
    """Return the rate and the samples (n,) or (n, c), mapped into memory where that is possible."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", wavfile.WavFileWarning)
        try:
            rate, values = wavfile.read(path, mmap=True)
        except ValueError as error:  # 24 bits a sample cannot be mapped
            if "container size" not in str(error):
                raise
            rate, values = wavfile.read(path)
    if any(_CUT_OFF in str(item.message) for item in told):
        raise OSError("the file is cut off")
    if values.dtype.kind not in "uif" or values.size == 0:
        raise OSError("the file holds no sound")
    if rate < 1:
        raise OSError("the file names no sampling rate")
    return int(rate), values


def _unit(values: Array) -> Array:
    """Return samples on the scale of -1 to 1, float64; 8 bits are stored without a sign."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    top = float(1 << (8 * values.dtype.itemsize - 1))
    return values.astype(np.float64) / top - (1.0 if values.dtype.kind == "u" else 0.0)
