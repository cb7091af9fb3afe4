// Sources of SquintConversion.
