"""What a model must obey, by verb, and `verify`, which tells which laws it does."""

from leadline.laws.verdicts import Law, Verification
from leadline.laws.verify import LAWS, verify

__all__ = ["LAWS", "Law", "Verification", "verify"]
