"""Gemma3-type models: loading, steering of the vision encoder, generation, and reading attention back.

What the detector ``medgemma`` and the attention analysis share. Needs the extra ``medgemma`` (torch, transformers).
"""
