"""Triton kernels; each module holds one and its launcher, and nothing else imports triton.

Without a GPU they run in Triton's interpreter: ``TRITON_INTERPRET=1`` before the import, and tensors
of the CPU.
"""
