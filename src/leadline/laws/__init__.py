"""What a model must obey, by verb, and `verify`, which tells which laws it does."""

from leadline.laws.statutes import LAWS, verify
from leadline.laws.verdicts import Law, Verification

__all__ = ["LAWS", "Law", "Verification", "verify"]
