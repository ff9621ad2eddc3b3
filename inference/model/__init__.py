"""The mathematics of the verdict, in torch alone: no files, no devices, no messages.

Importable with torch, timm, numpy, safetensors and jaxtyping and nothing else. Every function works
with shapes that do not depend on the batch, so a part's scores never depend on its neighbours.
"""
