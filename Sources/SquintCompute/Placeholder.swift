// Sources of SquintCompute.
