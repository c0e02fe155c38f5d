"""Triton kernels and their launchers, one purpose a module; `blocks` has what they share.

Nothing here is imported before a kernel is needed. Without a GPU they run in Triton's interpreter:
``TRITON_INTERPRET=1`` before triton is imported, and tensors of the CPU.
"""
