"""The ledger: every study, series, generation, object and delivery with its state and times.

A memory of the files, never their master: what stands here can be made anew from the data folder (`rebuild`), and no
role waits for it before it acts.
"""
