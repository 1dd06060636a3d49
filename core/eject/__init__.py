"""A job as a script of plain PyTorch that gives the same weights to the bit, without this project.

Written: datasets of images, arrays and tables; Sequential (nested), Residual, Parallel, recurrent and
attention layers, torchvision's architectures with their own or their pretrained weights; every loss of one
output, one-hot targets, class weights; optimizers with groups; schedules but those of an expression;
`initialize`, `freeze`, `unfreeze`; every transform, MixUp and CutMix; precision, threads, memory format,
fused optimizers, accumulation, clipping, averaged weights. `coverage.py` names what is not.
"""
