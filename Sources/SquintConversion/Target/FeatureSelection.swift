import SquintFile

/// Which of an encoder's outputs a checkpoint wants, in its own words.
package struct FeatureSelection: Equatable, Sendable {
  /// After how many layers features are taken, negative counted from the last (-1); nil: what the encoder gives in the
  /// end, with its last norm. (transformers' `hidden_states` have no norm.)
  package var layers: [Int]?
  package var classRow = ClassRow.drops

  package enum ClassRow: Sendable {
    case keeps
    /// The row of the class token, where there is one, is left out.
    case drops
    /// The first row is left out, whatever it is.
    case dropsFirst
  }

  package init(layers: [Int]? = nil, classRow: ClassRow = .drops) {
    self.layers = layers
    self.classRow = classRow
  }
}

extension EncoderConfiguration {
  /// Takes from this encoder what `selection` wants.
  ///
  /// - Parameter place: the file that the selection is from, for messages.
  package mutating func select(_ selection: FeatureSelection, place: String) throws(SquintError) {
    guard hasClass || selection.classRow != .dropsFirst else {
      throw .badData(
        place,
        "the first row of the features is left out (vision_feature_select_strategy \"default\"), but this encoder has no "
          + "class token, so that it is a patch; use \"full\"")
    }
    features.dropsClass = hasClass && selection.classRow != .keeps
    features.isNormed = selection.layers == nil
    features.layers = selection.layers?.map { $0 < 0 ? sourceLayers + 1 + $0 : $0 }
    try check(place: place)
  }
}
