"""What gradient steps on a cut network need: batches, parameters, a distance, optimisers.

`distill` trains the whole network with it, `blockwise` one block after the other.
"""
