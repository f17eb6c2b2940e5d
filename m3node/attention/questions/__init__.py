"""What is asked: the table of questions, the medical terms in them, and when two answers say the same."""
