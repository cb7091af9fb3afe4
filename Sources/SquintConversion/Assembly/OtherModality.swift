import SquintFile

// Ways into the model for media that are not images: sound, molecules, series.

/// What is done to a medium before its encoder: the keys `KIND.*` that its processor reads.
package protocol ProcessorSettings: Sendable {
  func write(to metadata: inout Metadata)
}

/// An encoder of media that are not images, as some source has it.
package struct OtherEncoder: Sendable {
  /// Its sizes and settings, for the module that its name says.
  package let blueprint: any NamedBlueprint
  /// The width of a row that the projector gets.
  package let featureWidth: Int
  /// The blueprint's tensors, in whatever shapes its source has them.
  package let expected: [ExpectedTensor]
  package let tensors: MappedTensors
  /// What its source says of the processor; nil: nothing.
  package var processor: (any ProcessorSettings)?
  /// What the user should know of it, a line each.
  package var notes: [String] = []

  package init(
    blueprint: any NamedBlueprint, featureWidth: Int, expected: [ExpectedTensor], tensors: MappedTensors,
    processor: (any ProcessorSettings)? = nil
  ) {
    self.blueprint = blueprint
    self.featureWidth = featureWidth
    self.expected = expected
    self.tensors = tensors
    self.processor = processor
  }
}

/// A way into the model for media that are not images, as far as the sources have it.
package struct OtherParts: Sendable {
  /// The kind: `audio`, `molecule`, `series`.
  package let name: String
  package var encoder: OtherEncoder?
  package var projector: ProjectorPart?
  /// What the model, not its encoder, says of the processor; nil: nothing.
  package var processor: (any ProcessorSettings)?
  package var prompt: MediaPrompt
  /// What conversations are written with where the decoder's source has no chat template.
  var template: ChatTemplates.Usual?
  /// What to say where the source lacks its encoder or its projector and the user gives none.
  package var missingEncoder: String?
  package var missingProjector: String?
  /// The file that the prompt is from, for messages.
  package let place: String

  package init(name: String, place: String) {
    self.name = name
    self.place = place
    prompt = MediaPrompt()
    prompt.marker = "<\(name)>"
  }

  /// The tensors of its parts.
  var tensors: [MappedTensors] { [encoder?.tensors, projector?.tensors].compactMap { $0 } }
}

/// An encoder and a projector for such media that fit each other and the decoder.
struct OtherModality: Sendable {
  let name: String
  let encoder: OtherEncoder
  /// nil only where there is no decoder either.
  let projector: ProjectorPart?
  let processor: any ProcessorSettings
  let prompt: MediaPrompt

  /// Checks that the parts fit.
  ///
  /// - Parameters:
  ///   - decoder: nil for encoders alone.
  ///   - tokens: the id of an added token of the tokenizer; nil where it has none with this text.
  ///   - notes: takes what the user should know.
  init(
    _ parts: OtherParts, decoder: DecoderConfiguration?, tokens: (String) -> Int?, notes: inout [String]
  ) throws(SquintError) {
    name = parts.name
    guard let encoder = parts.encoder else {
      if let missing = parts.missingEncoder { throw .badData(parts.place, missing) }
      throw SquintError(
        .usage, "there is a projector for \(name), but no encoder; give it with --encoder \(name)=SOURCE")
    }
    if parts.projector == nil, decoder != nil {
      if let missing = parts.missingProjector { throw .badData(parts.place, missing) }
      throw SquintError(
        .usage, "there is an encoder for \(name), but no projector; give it with --projector \(name)=FILE.safetensors")
    }
    notes += encoder.notes
    if let projector = parts.projector {
      try projector.configuration.check(
        featureWidth: encoder.featureWidth, decoder: decoder, place: projector.tensors.place)
    }
    guard let processor = either(parts.processor, encoder.processor) else {
      throw .badData(
        parts.place,
        "nothing says what is done to \(name) before the encoder; put preprocessor_config.json into the encoder's folder"
      )
    }
    self.processor = processor
    self.encoder = encoder
    projector = parts.projector
    var prompt = parts.prompt
    try prompt.findToken(name: name, decoder: decoder, place: parts.place, tokens: tokens)
    self.prompt = prompt
  }

  func write(to metadata: inout Metadata) {
    encoder.blueprint.write(to: &metadata)
    projector?.configuration.write(to: &metadata, name: name)
    processor.write(to: &metadata)
    prompt.write(to: &metadata, name: name)
  }
}
