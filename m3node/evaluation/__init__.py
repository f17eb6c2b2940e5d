"""Cases with truth: phantoms, inserted lesions, and how found lesions are matched to them."""
