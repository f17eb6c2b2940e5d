"""Makes the tables of docs/ that say what the code does, from the code; `tests/write_documents.py` puts them there."""
