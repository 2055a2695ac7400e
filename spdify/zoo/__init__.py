"""Sweeps over all models of timm and torchvision: what converts, what does not, and why."""
