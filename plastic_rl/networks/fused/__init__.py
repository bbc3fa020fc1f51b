"""The fast path of the Backpropamine family: a fused `unroll`, its backward pass, and their shared update."""
