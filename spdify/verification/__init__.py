"""Proofs that can fail."""

from spdify.verification.compare import failed, relative_error
from spdify.verification.proof import PROOF_LEVELS, Proof, choose_level, prove

__all__ = ["PROOF_LEVELS", "Proof", "choose_level", "failed", "prove", "relative_error"]
