"""Convolutional encoders and decoders at every size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core import OptionError
from leadline.nets.convolution import ConvDecoder, ConvEncoder, halved_sizes

sides = st.integers(1, 40)
norms = st.sampled_from(["none", "batch", "layer"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(c=st.integers(1, 3), h=sides, w=sides, stages=st.integers(1, 4), norm=norms, pooled=st.booleans())
def test_the_encoder_takes_every_size(c: int, h: int, w: int, stages: int, norm: str, pooled: bool) -> None:
    net = ConvEncoder((c, h, w), 5, (4,) * stages, norm=norm, pooled=pooled)
    assert net(torch.randn(3, c, h, w)).shape == (3, 5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(c=st.integers(1, 3), h=sides, w=sides, stages=st.integers(1, 4), norm=norms)
def test_the_decoder_ends_at_exactly_the_size_asked_for(
    c: int, h: int, w: int, stages: int, norm: str
) -> None:
    net = ConvDecoder(5, (c, h, w), (4,) * stages, norm=norm)
    assert net(torch.randn(3, 5)).shape == (3, c, h, w)


def test_sides_halve_until_they_are_short() -> None:
    assert halved_sizes((28, 9), 4) == [(28, 9), (14, 5), (7, 3), (4, 3), (2, 3)]


@pytest.mark.parametrize("size", [(1, 2, 2), (1, 4, 4), (3, 8, 8), (1, 7, 5), (1, 28, 28)])
@pytest.mark.parametrize("pooled", [False, True])
def test_every_pixel_reaches_the_code(size: tuple[int, int, int], pooled: bool) -> None:
    x = torch.randn(2, *size, requires_grad=True)
    ConvEncoder(size, 64, (8, 8, 8), activation="tanh", norm="none", pooled=pooled)(x).sum().backward()
    assert x.grad is not None
    touched = (x.grad != 0).float().mean()
    assert touched > 0.4 if pooled else touched == 1  # a maximum stops the others' gradient


@pytest.mark.parametrize("size", [(1, 2, 2), (1, 4, 4), (3, 8, 8), (1, 7, 5), (1, 28, 28)])
def test_the_code_reaches_every_pixel(size: tuple[int, int, int]) -> None:
    net = ConvDecoder(6, size, (8, 8, 8), norm="layer").double()
    a, b = net(torch.randn(2, 6, dtype=torch.float64))
    assert (a != b).all()


def test_in_evaluation_each_row_is_encoded_and_decoded_alone() -> None:
    encoder, decoder = ConvEncoder((1, 5, 6), 4).double().eval(), ConvDecoder(4, (1, 5, 6)).double().eval()
    x = torch.randn(6, 1, 5, 6, dtype=torch.float64)
    whole = decoder(encoder(x))
    torch.testing.assert_close(torch.cat([decoder(encoder(row[None])) for row in x]), whole)


def test_channels_last_changes_no_output() -> None:
    encoder = ConvEncoder((3, 9, 6), 4).double().eval()
    x = torch.randn(5, 3, 9, 6, dtype=torch.float64)
    expected = encoder(x)
    encoder.to(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(x.to(memory_format=torch.channels_last)), expected)


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(OptionError, match="must be positive"):
        ConvEncoder((1, 0, 4), 3)
    with pytest.raises(OptionError, match="must be positive"):
        ConvDecoder(3, (1, 4, 4), ())
    with pytest.raises(OptionError, match="unknown norm"):
        ConvEncoder((1, 4, 4), 3, norm="spectral")
