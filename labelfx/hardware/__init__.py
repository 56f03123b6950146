"""What a step costs on a machine that need not be there: TPU slices, the compiler's word, FLOPs and bytes."""
