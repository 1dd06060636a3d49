"""What a Modelyard plugin may offer: two layers with gradients of their own, a transform, a loss."""

from .layers import ScaledSwish, SignActivation
from .losses import FocalLoss
from .transforms import Pixelate

__all__ = ["FocalLoss", "Pixelate", "ScaledSwish", "SignActivation"]
