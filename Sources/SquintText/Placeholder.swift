// Sources of SquintText.
