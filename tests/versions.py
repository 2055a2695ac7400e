"""What the oldest releases that spdify runs with cannot show or do (`.ci/oldest.txt`)."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from packaging.version import Version

needs_const_addresses = pytest.mark.skipif(
    not hasattr(torch.Tensor, "const_data_ptr"), reason="this PyTorch tells no address without making a copy"
)
needs_newest_operators = pytest.mark.skipif(
    Version(onnxruntime.__version__) < Version("1.31"),
    reason="this ONNX Runtime does not run them: files stay unverified",
)
