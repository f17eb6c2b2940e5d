"""Gemma3-type models: loading, steering of the vision encoder, generation, and reading attention back.

What the detector ``medgemma`` and the attention analysis share. Needs the extra ``medgemma`` (torch, transformers).
"""

import os

# Before anything imports huggingface_hub, which reads it once. A download then says no more of this machine than the
# versions of Python and the libraries; nothing else is ever sent, and nothing at all when the model is on disk.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
