"""Makes the test model: a small Gemma3 that learns to see lesions on 2-D phantoms. Not MedGemma, not for medical use.

``python -m m3node.evaluation.test_model train`` makes it anew, ``measure`` says how good it is.
"""
