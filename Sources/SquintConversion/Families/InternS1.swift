import SquintFile

// Intern-S1 and Intern-S1-mini (arXiv 2508.15763): InternVL's tower and projector with a Qwen3 or a mixture of its experts, under
// names of its own.

extension MediaFamily {
  /// configuration_interns1.py, which comes with the checkpoints; transformers' draft of the class calls it `intern_s1`.
  static let internS1 = MediaFamily(
    description: "interns1", classes: ["interns1"],
    recognizes: { ["interns1", "intern_s1"].contains($0["model_type"]?.string ?? "") },
    decoderType: { config in
      config["text_config"] != nil && config["text_config"]?["model_type"] == nil ? "qwen3" : nil
    },
    isTied: { _, inner, outer in either(outer, inner) },
    parts: { (vision, notes) throws(SquintError) in
      var parts = try vision.internVL(notes: &notes)
      parts.encoder?.configuration.architecture = "interns1"
      // The class's default is InternVL's; its checkpoints name the token.
      if vision.config["image_token_id"] == nil { parts.prompt.token = nil }
      return parts
    })
}
