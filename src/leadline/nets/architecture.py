"""Which kind of network a model gets: dense or convolutional."""

from leadline.core.errors import DomainError, unknown_name

__all__ = ["ARCHITECTURES", "is_convolutional"]

ARCHITECTURES = ("auto", "dense", "conv")
_SMALLEST_PICTURE = 16


def is_convolutional(architecture: str, planes: tuple[int, int, int] | None) -> bool:
    """Return whether networks are to be convolutional; "auto" means for sides of at least 16 pixels.

    Args:
        architecture: "auto", "dense" or "conv".
        planes: Channels, height and width of a sample, or None if it is no picture.

    Raises:
        OptionError: If the architecture is unknown.
        DomainError: If it is "conv" and samples are no pictures.
    """
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES)
    if architecture == "conv" and planes is None:
        raise DomainError('architecture "conv" needs pictures, which the data are not; use "dense" or "auto"')
    large = planes is not None and min(planes[1:]) >= _SMALLEST_PICTURE
    return architecture == "conv" or (architecture == "auto" and large)
