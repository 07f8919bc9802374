"""What a model costs: parameters, FLOPs, time and memory, beside its peers."""
