def encode(mean, scale_factor):
    prompt = f"[Offset is {-mean:.4f}, scaled by {scale_factor:.4f}]<ts>"
    return prompt + "<ts/>"
