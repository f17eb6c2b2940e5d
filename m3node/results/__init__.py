"""What is answered: SR, SEG, GSPS, findings.json and the overlay picture, with deterministic UIDs."""
