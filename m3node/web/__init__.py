"""The status page: what a person sees of the node and may have it do, and what programs ask of it, over HTTP."""
