extension Double {
  /// The number of the fewest digits that rounds to `number`: what people wrote before a format made f32 of it, 1e-06 and
  /// not 9.99999997e-07.
  package init(shortest number: Float) {
    self = Double("\(number)") ?? Double(number)
  }
}
