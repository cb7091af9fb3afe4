// Sources of SquintModels.
